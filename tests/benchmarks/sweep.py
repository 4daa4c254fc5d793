"""Measures the overhead of a sweep: the seconds from the end of a trial to the start of the next.

    python tests/benchmarks/sweep.py                     200 trials, then 50 more with 2,000 recorded

The trials are as short as trials can be (k-means of a perceptron for digits), one at a time, so that all that is not
inside a trial is overhead: Optuna's proposal, Tune's placement, files, the driver's bookkeeping. For the second number
the study is grown by copies of its own trials, as if they had run, and then goes on. The first trial, which starts a
process, is not counted. The driver's CPU seconds per trial, of all its threads and with its start, stand beside: they
hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from printed import hardware
from rich.console import Console

from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.declaration import Origin
from pwfn.space.space import SearchSpace
from pwfn.sweep.cluster import prepare_environment
from pwfn.trial.rows import commit


def main() -> None:
    """Print the overhead of a new study and of a grown one; fail above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--recorded", type=int, default=2000)
    parser.add_argument("--more", type=int, default=50, help="trials of the grown study that are measured")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--limit", type=float, default=0.5, help="seconds of overhead per trial that pass")
    arguments = parser.parse_args()
    print(f"{hardware('cpu')}, commit {commit()}, sampler {arguments.sampler}")
    with tempfile.TemporaryDirectory() as results:
        cpu_seconds = run(results, arguments.sampler, arguments.trials)
        store = ResultsStore(results, "trivial")
        small = report(store, 0, cpu_seconds, "new study")
        grow(store, arguments.recorded)
        cpu_seconds = run(results, arguments.sampler, arguments.recorded + arguments.more)
        large = report(store, arguments.recorded, cpu_seconds, f"{arguments.recorded} trials recorded")
    print(f"ratio {large / small:.2f}")
    if max(small, large) > arguments.limit:
        sys.exit(f"more than {arguments.limit} s per trial")


def run(results: str, sampler: str, num_trials: int) -> float:
    """Start or continue a search; return the CPU seconds of this process."""
    before = time.process_time()
    prepare_environment(local=True)  # before Ray is imported
    from pwfn.sweep.sweep import search

    declared = {
        "fixed": {
            "model": {"name": "digits_mlp"},
            "data": {"name": "digits", "augmentation": "none"},
            "baseline": {"epochs": 2, "lr": 0.05},
            "method": {"name": "kmeans", "scope": "network"},
        },
        "vary": {"method.num_values": {"int": [2, 64]}, "method.max_order": {"int": [1, 8]}},
        "search": {"sampler": sampler, "trials": num_trials, "max_concurrent": 1},
    }
    space = SearchSpace.read("trivial", declared, Origin("the benchmark"))
    study = open_study(space, ResultsStore(results, "trivial"), command="benchmark")
    search(study, address=None, console=Console(file=sys.stderr, quiet=True))
    return time.process_time() - before


def report(store: ResultsStore, first: int, cpu_seconds: float, label: str) -> float:
    """Print and return the mean overhead of the trials from a number on, in seconds."""
    rows = sorted((row for row in store.read_trials() if row["number"] >= first), key=lambda row: row["started_at"])
    gaps = [(later["started_at"] - earlier["finished_at"]).total_seconds() for earlier, later in pairwise(rows)]
    inside = mean(row["wall_seconds"] for row in rows)
    print(
        f"{label}: overhead {mean(gaps):.3f} s per trial (median {median(gaps):.3f}, largest {max(gaps):.3f}, "
        f"{len(gaps)} gaps), inside a trial {inside:.3f} s, driver {cpu_seconds / len(rows):.3f} CPU s per trial",
        flush=True,
    )
    return mean(gaps)


def grow(store: ResultsStore, num_recorded: int) -> None:
    """Copy trials of the study until the wanted number is recorded."""
    rows = store.read_trials()
    proposals: list[dict[str, Any]] = store.read_proposals()
    for number in range(len(rows), num_recorded):
        trial_id = f"{number:04d}"
        source = number % len(rows)
        store.write_proposal(trial_id, {**proposals[source], "number": number, "trial_id": trial_id})
        for round_row in store.read_rounds(rows[source]["trial_id"]):
            store.append_round(trial_id, {**round_row, "number": number})
        store.write_trial({**rows[source], "number": number, "trial_id": trial_id})


if __name__ == "__main__":
    main()
