"""The one list of metrics: what it says, and that everything follows from an entry."""

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import duckdb
import pytest

from analysis.metrics import show
from pwfn.codebook import CodebookMetrics
from pwfn.metrics import METRICS, Bound, Unit, share_missed
from pwfn.results.schema import ROUNDS, TRIALS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_a_column_of_a_trial_and_of_a_round_where_it_is_known_there(name: str):
    metric = METRICS[name]
    assert TRIALS.field(name).metadata[b"unit"].decode() == metric.unit
    assert TRIALS.field(name).metadata[b"description"].decode() == metric.description
    assert (name in ROUNDS.names) == (metric.known == "round")
    assert metric.predicted_by is None or METRICS[metric.predicted_by].known == "round"


def test_every_unit_can_be_written():
    assert {metric.unit for metric in METRICS.values()} == {*get_args(Unit)}
    assert all(show(name, 1.0) for name in METRICS)


def test_every_number_of_a_codebook_is_in_the_list():
    names = {field.name for field in fields(CodebookMetrics)}
    assert names == {name for name, metric in METRICS.items() if metric.known == "round" and "top" not in name}


@pytest.mark.parametrize(
    ("kind", "bound", "value", "of_float", "share"),
    [
        ("min", 0.5, 0.4, 0, 0.2),
        ("max", 64, 80, 0, 0.25),
        ("max", 64, 48, 0, -0.25),
        ("max_drop", 0.01, 0.96, 0.98, 0.01 / 0.97),
        ("min", 0, -0.25, 0, 0.25),  # of a bound at 0, the difference
        ("max_drop", 0.075, 0.7, 0.775, 0.0),  # in floating point 0.775 - 0.075 is a little more than 0.7
    ],
)
def test_a_bound_is_missed_by_a_share_of_itself(kind: Bound, bound: float, value: float, of_float: float, share: float):
    found = share_missed(kind, bound, value, of_float)
    assert found == pytest.approx(share, rel=1e-6)
    assert (found > 0) == (share > 0)


ENTRY = """    Metric("largest_share", "fraction", "share of the commonest value", "Share of the weights at one value.",
           "maximize", 0, 1, heading="commonest", is_axis=True),
"""
SPACE = """
fixed:
  model: {name: digits_cnn}
  data: {name: digits}
  baseline: {epochs: 1}
  method: {name: kmeans}
vary:
  method.num_values: {int: [2, 8]}
objectives: {val_top1: maximize, largest_share: maximize}
constraints: {largest_share: {max: 0.99}}
search: {trials: 3}
"""
RUN = """
from rich.console import Console
import sys
import analysis, torch
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace
from pwfn.trial.run import run_trial
from pwfn.trial.decision import Decision

study = open_study(SearchSpace.load("few.yaml"), ResultsStore("results", "few"), command="test")
for number, values in enumerate((3, 6)):
    proposal = {"trial_id": f"{number:04d}", "number": number, "params": {"method.num_values": values}}
    study.store.write_proposal(proposal["trial_id"], proposal)
    run_trial(study.trial(proposal), study.store, device=torch.device("cpu"), replicas=Replicas(),
              on_round=lambda row, summary: Decision.CONTINUE)
loaded = analysis.load("results/few")
analysis.write_report(loaded, "report")
for table in analysis.front_tables(loaded):
    Console(width=200).print(table)
"""


def test_a_new_metric_is_one_entry_and_one_computation(tmp_path: Path):
    """A copy of the program gets one more, as CONTRIBUTING.md says, and shows it everywhere."""
    for package in ("pwfn", "analysis"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    edit(tmp_path / "pwfn/metrics.py", '    _fraction("coverage"', ENTRY + '    _fraction("coverage"')
    edit(
        tmp_path / "pwfn/codebook.py",
        "    max_order: int = 0\n",
        "    max_order: int = 0\n    largest_share: float = 0.0\n",
    )
    edit(
        tmp_path / "pwfn/codebook.py",
        "        max_order=int(orders.max()),\n",
        "        max_order=int(orders.max()),\n        largest_share=float(codebook.counts.max() / total),\n",
    )
    (tmp_path / "few.yaml").write_text(SPACE)
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "commonest" in done.stdout  # the table
    shares = duckdb.sql(f"SELECT largest_share FROM '{tmp_path}/results/few/trials/*.parquet' ORDER BY trial_id")
    (at_3,), (at_6,) = shares.fetchall()
    assert 0 < at_6 < at_3 < 1
    last = duckdb.sql(f"SELECT largest_share FROM '{tmp_path}/results/few/rounds/0000.parquet'").fetchall()
    assert last == [(at_3,)]
    assert json.loads((tmp_path / "results/few/study.json").read_text())["objectives"]["largest_share"] == "maximize"
    page = next((tmp_path / "report").glob("*.html")).read_text()
    assert "share of the commonest value" in page


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{path.name} has {before!r} not once"
    path.write_text(text.replace(before, after))
