"""Measures what the report of a large study costs: CPU seconds, elapsed seconds and the size of the page.

    python tests/benchmarks/report.py [--trials 5000] [--runs 3] [--folder DIR]

The study is drawn, but written by the store as a sweep would: three files per trial, configurations of five methods
with their real fields, ten rounds, codebooks of 2 to 400 values; a quarter of the trials is pruned, some failed. Times
are those of the whole process of `launchers/report.py`, imports included. `--folder` keeps the study and takes it if it
is there: writing it takes longer than reporting it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from pwfn.codebook import Codebook, measure_codebook
from pwfn.config import TrialConfig
from pwfn.results.configuration import config_columns
from pwfn.results.schema import ROUNDS, to_table
from pwfn.results.store import ResultsStore

LAUNCHER = Path(__file__).parents[2] / "launchers" / "report.py"
STUDY = "large"
NUM_ROUNDS = 10
NUM_WEIGHTS = 270_000
STATES = {"complete": 0.7, "pruned": 0.25, "failed": 0.05}
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def draw_config(rng: np.random.Generator) -> TrialConfig:
    """One of five methods, with the fields that its search space varies."""
    lr = float(10 ** rng.uniform(-4, -1.5))
    methods: list[dict[str, Any]] = [
        {"name": "pwfn", "b": int(rng.integers(2, 9)), "max_order": int(rng.integers(1, 5)),
         "regularization_strength": float(10 ** rng.uniform(-5, -1)), "start_sigma": float(rng.uniform(0.5, 4)),
         "end_sigma": float(rng.uniform(0.5, 4)), "sigma_scale": float(10 ** rng.uniform(-3, -1.3))},
        {"name": "wfn", "delta": float(10 ** rng.uniform(-2.3, -0.7)),
         "zero_distance": float(10 ** rng.uniform(-2.7, -1.2))},
        {"name": "kmeans", "num_values": int(rng.integers(2, 65)), "weighting": str(rng.choice(["plain", "fisher"]))},
        {"name": "gpfq", "bits": int(rng.integers(1, 7)), "shared_alphabet": bool(rng.integers(2))},
        {"name": "msq", "bits": int(rng.integers(1, 7)), "scale": float(rng.uniform(0.4, 1.2))},
    ]  # fmt: skip
    method = methods[rng.choice(len(methods), p=[0.4, 0.15, 0.15, 0.15, 0.15])]
    fields = {"model": {"name": "cifar_resnet20"}, "data": {"name": "digits"}, "training": {"lr": lr}}
    return TrialConfig.model_validate({**fields, "method": method, "seed": int(rng.integers(2**62))})


def draw_codebook(rng: np.random.Generator) -> Codebook:
    """Sums of powers of two, few weights at the large ones."""
    steps = np.sort(rng.choice(np.arange(-512, 512), int(2 ** rng.uniform(1, 8.6)), replace=False))
    share = np.exp(-((steps / 160.0) ** 2)) * rng.uniform(0.5, 1, len(steps))
    counts = 1 + (share / share.sum() * NUM_WEIGHTS).astype(np.int64)
    return Codebook((steps / 512).astype(np.float32), counts)


def draw_rounds(
    rng: np.random.Generator, trial_id: str, config: TrialConfig, num_done: int
) -> Iterator[dict[str, Any]]:
    """The rounds of one trial, all columns filled."""
    sigmas = {f"sigma_q{level:02d}": float(rng.uniform(1e-3, 1e-1)) for level in (5, 25, 50, 75, 95)}
    for number in range(num_done):
        accuracies = dict(
            zip(("val_top1_before", "val_top1", "val_top5"), rng.uniform(0.5, 0.93, 3).tolist(), strict=True)
        )
        yield {
            "trial_id": trial_id, "study": STUDY, "method": config.method.name, "round": number,
            "num_rounds": NUM_ROUNDS, "fraction": (number + 1) / NUM_ROUNDS,
            "num_fixed": NUM_WEIGHTS // NUM_ROUNDS * (number + 1), **accuracies,
            "method_numbers": sigmas if config.method.name == "pwfn" else {},
            "unique_values": int(rng.integers(2, 400)),
            "entropy_bits": float(rng.uniform(1, 8)), "train_loss": float(rng.uniform(0, 1)), "train_seconds": 9.5,
            "finished_at": START + dt.timedelta(minutes=number),
        }  # fmt: skip


def write_trial(store: ResultsStore, folder: Path, number: int, rng: np.random.Generator) -> None:
    """Write the files of one trial."""
    trial_id, config, state = f"{number:04d}", draw_config(rng), str(rng.choice(list(STATES), p=list(STATES.values())))
    num_done = {"complete": NUM_ROUNDS, "pruned": int(rng.integers(1, NUM_ROUNDS)), "failed": 0}[state]
    rounds = to_table(list(draw_rounds(rng, trial_id, config, num_done)), ROUNDS)
    if num_done:  # at once, as the store writes it: appending would read and write each file ten times
        pq.write_table(rounds, folder / "rounds" / f"{trial_id}.parquet", use_dictionary=False, write_statistics=False)
    found: dict[str, Any] = {"failure_class": "nan", "failure_message": "the loss is not finite"}
    if state != "failed":
        codebook = draw_codebook(rng)
        cost = 6 - np.log2(len(codebook.values))
        accuracy = float(0.92 - 0.1 * max(cost, 0) ** 2 / 36 - rng.exponential(0.03))
        found = vars(measure_codebook(codebook)) | {"val_top1": accuracy, "size_bytes": int(rng.integers(3e4, 3e5))}
    if state == "complete":
        store.write_values(trial_id, codebook)
        found |= {"test_top1": accuracy - float(rng.normal(0.004, 0.003)), "test_top5": 0.99, "compression_ratio": 12.0}
    start = START + dt.timedelta(minutes=number)
    row = {
        "trial_id": trial_id, "number": number, "study": STUDY, "method": config.method.name, "state": state,
        "model": config.model.name, "data": config.data.name, "config_json": config.model_dump_json(),
        "float_val_top1": 0.925, "float_test_top1": 0.917, "num_weights": NUM_WEIGHTS, "rounds_done": num_done,
        "wall_seconds": 55.0, "gpu_seconds": 50.0, "started_at": start,
        "finished_at": start + dt.timedelta(minutes=1), "host": "node",
    }  # fmt: skip
    store.write_trial({**config_columns(config), **row, **found})


def write_study(results: Path, num_trials: int) -> None:
    """Write a study of `num_trials` trials, the same for the same number."""
    store = ResultsStore(str(results), STUDY)
    store.create()
    objectives = {"val_top1": "maximize", "unique_values": "minimize"}
    rng = np.random.default_rng(0)
    for number in range(num_trials):
        write_trial(store, results / STUDY, number, rng)
    store.write_study({"study": STUDY, "objectives": objectives, "num_trials": num_trials})  # last: it is whole


def measure(results: Path, out: Path) -> tuple[float, float, float]:
    """CPU seconds, elapsed seconds and peak memory in MB of one run of the launcher."""
    command = [sys.executable, str(LAUNCHER), "--study", STUDY]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--results", str(results), "--out", str(out)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"launchers/report.py ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024


def main() -> None:
    """Print a table, one line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the study is, or goes (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = options.folder or Path(temporary)
        if not (results / STUDY / "study.json").exists():
            write_study(results, options.trials)
        num_trials = len(list((results / STUDY / "trials").iterdir()))
        print(
            f"{num_trials:,} trials; {platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}\n"
        )
        print("| CPU s | elapsed s | peak MB | report.html MB |\n|---|---|---|---|", flush=True)
        for _ in range(options.runs):
            cpu, elapsed, peak = measure(results, Path(temporary) / "out")
            size = (Path(temporary) / "out" / "report.html").stat().st_size / 1e6
            print(f"| {cpu:.1f} | {elapsed:.1f} | {peak:.0f} | {size:.1f} |", flush=True)


if __name__ == "__main__":
    main()
