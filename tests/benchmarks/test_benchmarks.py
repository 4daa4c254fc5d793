"""Every benchmark runs at a small size and prints its table."""

import importlib.util
import logging
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pwfn.config import shared_data_folder

FOLDER = Path(__file__).parent
NUMBER = r"[\d,.]+"
SMALL_DIGITS = (
    "model.name=digits_mlp", "baseline.epochs=1", "training.start_fraction=1", "training.rest_epochs=1",
    "data.train_images=200",
)  # fmt: skip
SMALL_SPACE = (*SMALL_DIGITS, "search.max_concurrent=1")

HERE = {
    "data": (["--files", "27000"], rf"27,000 files: listing takes {NUMBER} of os.walk, the fingerprint {NUMBER}"),
    "fuzz_export": (["--seconds", "0"], "8 files to start from are read"),
    "kmeans speed": (["--sizes", "5e3"], rf"5,000 +16 +plain( +{NUMBER}){{4}}"),
    "pwfn_options": (
        ["--seeds", "1", "--options", "growth: nearest", "--set", *SMALL_DIGITS],
        rf"growth: nearest +{NUMBER} +{NUMBER}",
    ),
    "scale": (
        ["--trials", "200", "--slots", "20", "--samplers", "tpe", "random"],
        rf"trials of 1 min: {NUMBER} h, {NUMBER} per hour, slots used \d+%",
    ),
    "stages": (
        ["--seeds", "1", "--values", "4", "2", "--rounds", "1", "--set", *SMALL_DIGITS],
        rf"one each, twice as many +{NUMBER} +[+-]{NUMBER} +{NUMBER} +{NUMBER}\n",
    ),
    "step": (
        ["--models", "test_resnet", "--turns", "1", "--batch-size", "4", "--limit", "1000"],
        rf"\| test_resnet \| float32 \| qat, 16 values \| {NUMBER} \| {NUMBER} \| {NUMBER} \(",
    ),
    "step_counts": (["digits_cnn"], rf"\| digits_cnn \| WFN, half fixed \| \d+ \| \d+ \| {NUMBER} \|"),
    "straight_through": (
        ["--seeds", "1", "--values", "4", "--variants", "qat", "--set", *SMALL_DIGITS],
        rf"4 values .*\nqat +{NUMBER} +{NUMBER}",
    ),
    "waiting": (
        ["--photos", "160", "--workers", "1", "--turns", "1"],
        rf"pwfn waits {NUMBER} times as long as ImageFolder and DataLoader",
    ),
    "wfn": (["--sizes", "2e4"], rf"20,000( +{NUMBER}){{10}}"),
}
"""Benchmarks that run in this process, so that torch is imported once: options, and a pattern in the output."""

LONGEST = {"step", "step_counts", "wfn", "data"}
"""Those of `HERE` that take more than a few seconds."""

DATA = {
    "kmeans accuracy": (
        ["--test-images", "100", "--fisher-images", "8", "--values", "8"],
        rf"float +{NUMBER} +{NUMBER}\n +8 ",
    ),
    "gpfq cifar10": (
        ["--test-images", "100", "--calibration-images", "32"],
        rf"order activation( +{NUMBER}){{3}}",
    ),
}
"""Benchmarks that need real data."""

CLUSTER = {
    "occupancy": (
        ["--space", "digits", "--trials", "2", "--slots", "1", "--limit", "0", "--set", *SMALL_DIGITS],
        rf"2 trials on 1 slots in {NUMBER} s(.|\n)*rounds +{NUMBER}\n(.|\n)*report +{NUMBER}\n",
    ),
    "sweep": (
        ["--trials", "3", "--recorded", "6", "--more", "2", "--limit", "60"],
        rf"6 trials recorded: overhead {NUMBER} s(.|\n)*ratio {NUMBER}\n",
    ),
    "pruning": (
        ["--seeds", "1", "--trials", "3", "--pruning", "1", "2", "--set", *SMALL_SPACE],
        rf"live, grace 1, factor 2:(.|\n)*\| 5 \| 2 \| {NUMBER} \|",
    ),
    "rehearsal": (
        ["--classes", "10", "--photos", "8", "--val", "2"],
        rf"plan and check +{NUMBER}(.|\n)*float network +{NUMBER}(.|\n)*search +{NUMBER}(.|\n)*export +{NUMBER}"
        rf"(.|\n)*bytes per weight\ntrial 0000: 10 rounds(.|\n)*{NUMBER} values, {NUMBER} bytes, test accuracy",
    ),
}
"""Benchmarks that start Ray."""

PARTS = {"printed", "first_gpu_parts", "nncodec_size", "version1_encoder"}
"""Files that benchmarks use and that are no benchmarks themselves."""


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Undo the settings that a benchmark makes for its process."""
    num_threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    yield
    torch.set_num_threads(num_threads)
    logging.disable(disabled)


def test_every_benchmark_is_run() -> None:
    elsewhere = {path.name[5:-13] for path in FOLDER.parent.rglob("test_*_benchmark.py")}
    run = {name.split()[0] for cases in (HERE, DATA, CLUSTER) for name in cases} | {"samplers", "sampler_surrogate"}
    assert run | elsewhere | PARTS == {path.stem for path in FOLDER.glob("*.py")} - {Path(__file__).stem}


def run_here(name: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, *table = name.split()
    monkeypatch.setattr(sys, "argv", [f"{benchmark}.py", *table, *options])
    runpy.run_path(str(FOLDER / f"{benchmark}.py"), run_name="__main__")


def run_apart(benchmark: str, options: list[str]) -> str:
    command = [sys.executable, str(FOLDER / f"{benchmark}.py"), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.parametrize("name", [pytest.param(each, marks=[pytest.mark.slow] * (each in LONGEST)) for each in HERE])
def test_a_small_run_prints_its_table(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options, expected = HERE[name]
    monkeypatch.chdir(tmp_path)  # some keep their results
    run_here(name, options, monkeypatch)
    assert re.search(expected, capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.skipif(shared_data_folder() is None, reason="needs real data: set PWFN_DATA")
@pytest.mark.parametrize("name", DATA)
def test_a_small_run_on_real_data_prints_its_table(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, expected = DATA[name]
    run_here(name, options, monkeypatch)
    assert re.search(expected, capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)  # the rehearsal starts Ray twice and trains a network for 224 pixels
@pytest.mark.parametrize("name", CLUSTER)
def test_a_small_sweep_prints_its_table(name: str) -> None:
    options, expected = CLUSTER[name]
    output = run_apart(name, options)
    print(output)  # shown by pytest -s, and where the next line fails
    assert re.search(expected, output)


@pytest.mark.slow
def test_samplers_are_compared_by_searches_and_then_by_a_surrogate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    contestants = ["random", "tpe, pruning, stages", "Optuna alone"]
    options = ["--seeds", "1", "--seconds", "1.5", "--results", str(tmp_path), "--set", *SMALL_DIGITS]
    run_here("samplers", [*options, "--only", *contestants], monkeypatch)
    tables = "(.|\n)*".join(rf"\| {name} \| {NUMBER} \|" for name in contestants * 2)
    assert re.search(tables, capsys.readouterr().out)
    run_here("sampler_surrogate", [str(tmp_path / "random-0"), "--seeds", "1", "--trials", "4"], monkeypatch)
    assert re.search(rf"\| tpe, pruning \| {NUMBER} \|", capsys.readouterr().out)


@pytest.mark.skipif(importlib.util.find_spec("neps") is not None, reason="NePS is installed")
def test_neps_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="needs NePS; pip install neural-pipeline-search"):
        run_here("samplers", ["--only", "NePS, PriMO"], monkeypatch)
