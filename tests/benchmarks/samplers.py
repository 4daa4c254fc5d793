"""Compares samplers by the hypervolume that they reach in equal training seconds, over several seeds.

    python tests/benchmarks/samplers.py                                          PWFN on the digits
    python tests/benchmarks/samplers.py --space pwfn_cifar10 --seeds 3 --set training.steps_per_epoch=3 ...

Every contestant searches the same space from nothing (the space's start settings are left out), once per seed, on this
machine. Seconds are those of the trials, pruned and failed ones included, in the order in which they ended; the
columns are shares of the seconds of the cheapest search, so that in a column all contestants have spent equal seconds.
Cells are mean +- standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import pandas as pd
from printed import hardware, spread
from rich.console import Console

import analysis
from analysis.front import Objectives
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.declaration import PruningConfig
from pwfn.space.space import SearchSpace
from pwfn.sweep.cluster import prepare_environment
from pwfn.trial.rows import commit

CONTESTANTS: dict[str, dict[str, Any]] = {
    "tpe": {"sampler": "tpe"},
    "tpe, pruning": {"sampler": "tpe", "pruning": PruningConfig()},
    "nsga2": {"sampler": "nsga2"},
    "gp": {"sampler": "gp"},
    "random": {"sampler": "random"},
}
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Columns of the table, as shares of the seconds of the cheapest search."""


def main() -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="pwfn_digits", help="the space that is searched")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", dest="overrides")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24, help="per search")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="CONTESTANT")
    parser.add_argument("--results", help="folder that keeps the searches, and goes on with them (default: temporary)")
    arguments = parser.parse_args()
    print(f"{hardware('cpu')}, commit {commit()}")
    prepare_environment(local=True)  # before Ray is imported
    space = SearchSpace.load(arguments.space, arguments.overrides)
    with tempfile.TemporaryDirectory() as scratch:
        results = arguments.results or scratch
        found = {
            name: [run(space_of(space, name, seed, arguments.trials), results, name) for seed in range(arguments.seeds)]
            for name in arguments.only
        }
    show(found, space.objectives)


def space_of(space: SearchSpace, contestant: str, seed: int, num_trials: int) -> SearchSpace:
    """Let a contestant search a space from nothing."""
    changes = {**CONTESTANTS[contestant], "seed": seed, "trials": num_trials}
    return dataclasses.replace(space, start_with=(), search=space.search.model_copy(update=changes))


def run(space: SearchSpace, results: str, contestant: str) -> pd.DataFrame:
    """Run one search, or read its results if they are kept; return its trials."""
    from pwfn.sweep.sweep import search

    name = f"{contestant.replace(', ', '-')}-{space.search.seed}"
    study = open_study(space, ResultsStore(results, name), command="benchmark")
    search(study, address=None, console=Console(file=sys.stderr, quiet=True))
    trials = analysis.load(analysis.study_folder(results, name)).trials
    print(f"{name}: {trials['wall_seconds'].sum():.0f} s in trials", file=sys.stderr, flush=True)
    return trials


def show(found: dict[str, list[pd.DataFrame]], objectives: Objectives) -> None:
    """Print each contestant's hypervolume after equal seconds, and its trials by the end; `found` holds searches."""
    every = [trials for searches in found.values() for trials in searches]
    among = pd.concat(every)
    budget = min(float(trials["wall_seconds"].sum()) for trials in every)
    print(f"hypervolume after a share of {budget:.0f} trial seconds")
    print(f"| sampler | {' | '.join(f'{share:.0%}' for share in SHARES)} | trials complete by then |")
    print(f"|{'---|' * (len(SHARES) + 2)}")
    for name, searches in found.items():
        by_then = [[spent(trials, share * budget) for share in SHARES] for trials in searches]
        shares = [[analysis.hypervolume(part, objectives, among).share for part in parts] for parts in by_then]
        cells = [spread(column, "{:.4f}") for column in zip(*shares, strict=True)]
        complete = spread([float((parts[-1]["state"] == "complete").sum()) for parts in by_then], "{:.1f}")
        print(f"| {name} | {' | '.join(cells)} | {complete} |")


def spent(trials: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """Return the trials that had ended when a search had spent so many seconds."""
    ordered = trials.sort_values(["finished_at", "number"])
    return ordered[np.cumsum(ordered["wall_seconds"].fillna(0)) <= seconds + 1e-6]


if __name__ == "__main__":
    main()
