"""Bounds: which trials keep them, what the report does with those that do not."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import Record, configured

import analysis
from analysis.feasible import Constraints, judged, violation
from analysis.figure import draw
from analysis.report import write_report
from analysis.seeds import front_probability
from analysis.series import panels
from pwfn.space.constraints import read_constraints, total_violation
from pwfn.space.declaration import Origin

CONSTRAINTS = {"val_top1": {"max_drop": 0.03, "min": 0.9}, "unique_values": {"max": 50}}
CARD = {
    "study": "bound",
    "objectives": {"val_top1": "maximize", "unique_values": "minimize"},
    "num_trials": 10,
    "space": {"constraints": CONSTRAINTS},
}
ROWS = [
    {**configured(3), "unique_values": 8, "val_top1": 0.94},  # below float, 0.985, by more than 0.03
    {**configured(4), "unique_values": 20, "val_top1": 0.955},  # exactly at the bound
    {**configured(5), "unique_values": 51, "val_top1": 0.99},  # a value too many
    {**configured(6), "unique_values": 40, "val_top1": 0.97},
    {**configured(7), "unique_values": 2, "val_top1": 0.99, "state": "pruned"},
    {**configured(8), "state": "failed", "failure_class": "nan", "failure_message": "loss"},
]
SEEDS = [
    {**configured(6, seed=1), "trial_id": "t3-r1", "number": 3, "unique_values": 40, "val_top1": 0.954},  # misses it
    {**configured(6, seed=2), "trial_id": "t3-r2", "number": 3, "unique_values": 40, "val_top1": 0.96},
    {**configured(4, seed=1), "trial_id": "t1-r1", "number": 1, "unique_values": 20, "val_top1": 0.95},
]

numbers = st.floats(0, 1).map(lambda value: round(value, 3))
rows = st.fixed_dictionaries({"val_top1": numbers, "float_val_top1": numbers, "unique_values": st.integers(1, 100)})


def test_trials_that_miss_a_bound_are_infeasible_and_on_no_front(record: Record, tmp_path: Path) -> None:
    record("bound", ROWS, CARD)
    study = analysis.load(str(tmp_path / "results" / "bound"))
    states = ["infeasible", "complete", "infeasible", "complete", "pruned", "failed"]
    assert study.trials["state"].tolist() == states
    assert analysis.front(study.trials, study.objectives)["trial_id"].tolist() == ["t1", "t3"]


def test_a_configuration_is_judged_by_the_mean_of_its_seeds(record: Record, tmp_path: Path) -> None:
    record("bound", ROWS + SEEDS, CARD)
    study = analysis.load(str(tmp_path / "results" / "bound"))
    assert study.trials["trial_id"].tolist() == ["t0", "t1", "t1-r1", "t2", "t3", "t3-r1", "t3-r2", "t4", "t5"]
    [(_, [one])] = panels([study])
    points = one.points.set_index("trial_id")
    assert points.loc["t3", ["state", "num_seeds", "trial_ids"]].tolist() == ["complete", 3, ["t3", "t3-r1", "t3-r2"]]
    assert (points.loc["t3", "val_top1_low"], points.loc["t3", "val_top1_high"]) == (0.954, 0.97)
    assert points.loc["t1", "state"] == "infeasible"
    assert analysis.front(one.points, one.objectives)["trial_id"].tolist() == ["t3"]


def test_a_seed_that_misses_a_bound_makes_a_place_on_the_front_less_sure(record: Record, tmp_path: Path) -> None:
    seeds = [
        {**configured(2, seed=seed), "trial_id": f"t9-r{seed}", "unique_values": 30, "val_top1": 0.96}
        for seed in (0, 1)
    ]
    record("bound", ROWS + SEEDS + seeds, CARD)
    [(_, [one])] = panels([analysis.load(str(tmp_path / "results" / "bound"))])
    sure = front_probability(one.trials, one.points, one.objectives)
    assert sure["t9-r0"] == 1
    assert 0 < sure["t3"] < (2 / 3) ** 3 + 0.05, "three draws without the seed that misses the bound"


def test_the_report_counts_them(record: Record, tmp_path: Path) -> None:
    record("bound", ROWS, CARD)
    out = tmp_path / "report"
    write_report(str(tmp_path / "results" / "bound"), str(out))
    assert "2 complete · 2 infeasible · 1 pruned · 1 failed" in (out / "front.md").read_text()
    page = (out / "report.html").read_text()
    assert 'name="state" value="infeasible"' in page
    assert '<button type="button">infeasible</button>' in page
    assert pd.read_csv(out / "trials.csv")["state"].value_counts()["infeasible"] == 2


def test_a_study_without_bounds_knows_no_such_state(record: Record, tmp_path: Path) -> None:
    record("free", ROWS)
    out = tmp_path / "report"
    write_report(str(tmp_path / "results" / "free"), str(out))
    assert "4 complete · 1 pruned · 1 failed" in (out / "front.md").read_text()
    assert 'value="infeasible"' not in (out / "report.html").read_text()


@given(st.lists(rows, min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_search_judges_the_same(drawn: list[dict[str, float]]) -> None:
    constraints = read_constraints(CONSTRAINTS, Origin("test.yaml"))
    trials = pd.DataFrame(drawn).assign(state="complete")
    states = judged(trials.assign(violation=violation(trials, CONSTRAINTS)))["state"]
    assert (states == "complete").tolist() == [total_violation(constraints, row) == 0 for row in drawn]


def test_the_float_network_of_several_seeds_is_one_line(record: Record, tmp_path: Path) -> None:
    """The mean of three equal numbers may differ from them in the last digit."""
    rows = [{**configured(3, seed=seed), "unique_values": 8, "val_top1": 0.9} for seed in range(3)]
    rows.append({**configured(4), "unique_values": 16, "val_top1": 0.95})
    record("seeds", rows, float_val_top1=0.8422365)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "seeds"))])
    labels = [text.get_text() for text in draw(series, "", "", "").legends[0].get_texts()]
    assert "float network, validation (84.2 %)" in labels


def test_a_missing_metric_keeps_no_bound() -> None:
    trials = pd.DataFrame([{"val_top1": 0.99, "unique_values": float("nan")}])
    assert violation(trials, {"unique_values": {"max": 50}, "val_top1": {"min": 0.5}}).isna().all()
    assert violation(trials, {"val_top1": {"min": 0}}).tolist() == pytest.approx([-0.99])


def test_where_no_trial_keeps_the_bounds_the_nearest_is_named(record: Record, tmp_path: Path) -> None:
    rows = [
        {"trial_id": f"t{number}", "state": "complete", "val_top1": top1, "float_val_top1": 0.97, "unique_values": 70}
        for number, top1 in enumerate((0.9, 0.94, 0.2))
    ]
    constraints: Constraints = {"val_top1": {"max_drop": 0.02}, "unique_values": {"max": 64}}
    record("bound", rows, {**CARD, "space": {"constraints": constraints}})
    trials = analysis.load(str(tmp_path / "results" / "bound")).trials
    assert analysis.nearest_miss(trials, constraints) == (
        "no trial keeps the constraints; the nearest is t1: val_top1 is 94.00 %, but at least 95.00 % is asked for, "
        "unique_values is 70, but at most 64 is asked for"
    )
    assert analysis.nearest_miss(trials, {}) is None
    assert analysis.nearest_miss(judged(trials.assign(violation=[0.0, 1.0, 1.0])), constraints) is None
