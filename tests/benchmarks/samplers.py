"""Which sampler finds the better front in as many seconds: hypervolume against training seconds, several seeds.

    python tests/benchmarks/samplers.py                                          PWFN on the digits
    python tests/benchmarks/samplers.py --space pwfn_cifar10 --seeds 3 --set training.steps_per_epoch=3 ...

Every contestant searches the same space from nothing (the space's start settings are left out), once per seed, on this
machine. Seconds are those of the trials, pruned and failed ones included, in the order in which they ended; the
columns are shares of the seconds of the cheapest search, so that each contestant has spent as much. Cells are mean +-
standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import pandas as pd
from clustering import hardware
from rich.console import Console

import analysis
from pwfn.results.store import ResultsStore
from pwfn.search.cluster import prepare_environment
from pwfn.search.rows import commit
from pwfn.search.space import SearchSpace
from pwfn.search.study import open_study

CONTESTANTS = {
    "tpe": ["search.sampler=tpe"],
    "tpe, pruning": ["search.sampler=tpe", "search.pruning={}"],
    "nsga2": ["search.sampler=nsga2"],
    "gp": ["search.sampler=gp"],
    "random": ["search.sampler=random"],
}
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the seconds of the cheapest search."""


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
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            name: [run(arguments, arguments.results or scratch, name, seed) for seed in range(arguments.seeds)]
            for name in arguments.only
        }
    show(found)


def run(arguments: argparse.Namespace, results: str, contestant: str, seed: int) -> analysis.Study:
    """Run one search, or read it where it is kept."""
    from pwfn.search.sweep import search

    overrides = [*arguments.overrides, *CONTESTANTS[contestant]]
    space = SearchSpace.load(arguments.space, overrides, seed=seed, trials=arguments.trials)
    study = open_study(
        dataclasses.replace(space, start_with=()),
        ResultsStore(results, f"{contestant.replace(', ', '-')}-{seed}"),
        command="benchmark",
    )
    search(study, address=None, console=Console(file=sys.stderr, quiet=True))
    loaded = analysis.load(analysis.study_folder(results, study.store.study))
    print(f"{loaded.name}: {loaded.trials['wall_seconds'].sum():.0f} s in trials", file=sys.stderr, flush=True)
    return loaded


def show(found: dict[str, list[analysis.Study]]) -> None:
    """Print each contestant's hypervolume after equal seconds, and its trials by the end."""
    every = [study for studies in found.values() for study in studies]
    among = pd.concat([study.trials for study in every])
    budget = min(float(study.trials["wall_seconds"].sum()) for study in every)
    print(f"hypervolume after a share of {budget:.0f} trial seconds")
    print(f"| sampler | {' | '.join(f'{share:.0%}' for share in SHARES)} | trials complete by then |")
    print(f"|{'---|' * (len(SHARES) + 2)}")
    for name, studies in found.items():
        by_then = [[spent(study, share * budget) for share in SHARES] for study in studies]
        shares = [[analysis.hypervolume(part, study.objectives, among).share for part in parts]
                  for study, parts in zip(studies, by_then, strict=True)]  # fmt: skip
        cells = [spread(column) for column in zip(*shares, strict=True)]
        complete = spread([float((parts[-1]["state"] == "complete").sum()) for parts in by_then], "{:.1f}")
        print(f"| {name} | {' | '.join(cells)} | {complete} |")


def spent(study: analysis.Study, seconds: float) -> pd.DataFrame:
    """The trials that had ended when a search had spent so many seconds."""
    trials = study.trials.sort_values(["finished_at", "number"])
    return trials[np.cumsum(trials["wall_seconds"].fillna(0)) <= seconds + 1e-6]


def spread(values: list[float] | tuple[float, ...], form: str = "{:.4f}") -> str:
    """Mean and standard deviation in words."""
    deviation = stdev(values) if len(values) > 1 else float("nan")
    return f"{form.format(mean(values))} +- {form.format(deviation)}"


if __name__ == "__main__":
    main()
