"""What pruning with several objectives saves, and what it costs: the front's hypervolume against training seconds.

    python tests/benchmarks/pruning.py                       live: whole searches with and without pruning, five seeds
    python tests/benchmarks/pruning.py --replay RESULTS      recorded: what rules would have done to those searches

Live, each seed searches the digits space twice with the random sampler, so both searches propose the same trials; the
difference is pruning alone. Recorded, every order of arrival is drawn anew from the full learning curves of the live
searches, and a control runs fewer trials without pruning in as many seconds. Hypervolume is a share of that of all
trials of the seed, pruned or not; seconds are those of the rounds that were run. Cells are mean +- standard deviation
over the seeds (and orders).
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import pandas as pd
from clustering import hardware
from rich.console import Console

from analysis.front import hypervolume
from pwfn.results.store import ResultsStore
from pwfn.search.cluster import prepare_environment
from pwfn.search.constraints import total_violation
from pwfn.search.declaration import PruningConfig
from pwfn.search.pruning import Referee
from pwfn.search.rows import Row, commit
from pwfn.search.space import SearchSpace
from pwfn.search.study import open_study

RULES = [(1, 2.0), (1, 3.0), (2, 2.0), (2, 3.0), (3, 2.0), (3, 3.0), (4, 2.0), (5, 2.0)]
"""Grace rounds and reduction factors that are replayed."""
SLOTS = 2
"""Trials at once in a replay."""
ORDERS = 20
"""Orders of arrival per recorded search."""
PHASES = ("train_seconds", "fix_seconds", "eval_seconds")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="digits", help="the space that is searched")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", dest="overrides")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40, help="per search")
    parser.add_argument(
        "--pruning", nargs=2, type=float, default=None, metavar=("GRACE", "FACTOR"), help="of the live run"
    )
    parser.add_argument("--results", help="folder that keeps the searches (default: a temporary one)")
    parser.add_argument("--replay", metavar="RESULTS", help="replay the searches kept there, run none")
    arguments = parser.parse_args()
    print(f"{hardware('cpu')}, commit {commit()}")
    if arguments.replay:
        show_replay(arguments.replay)
        return
    with tempfile.TemporaryDirectory() as scratch:
        results = arguments.results or scratch
        show_live(arguments, results)
        show_replay(results)


def show_live(arguments: argparse.Namespace, results: str) -> None:
    """Search with and without pruning, and print what each seed gave."""
    config = PruningConfig()
    if arguments.pruning is not None:
        grace, factor = arguments.pruning
        config = PruningConfig(grace_rounds=int(grace), reduction_factor=factor)
    found = []
    for seed in range(arguments.seeds):
        full = run(arguments, results, seed, "null", f"full-{seed}")
        pruned = run(arguments, results, seed, config.model_dump_json(), f"pruned-{seed}")
        objectives = SearchSpace.load(arguments.space).objectives
        among = pd.DataFrame([*full.read_trials(), *pruned.read_trials()])
        shares = [hypervolume(complete(store), objectives, among).share for store in (full, pruned)]
        seconds = [sum(row["wall_seconds"] for row in store.read_trials()) for store in (full, pruned)]
        num_pruned = sum(row["state"] == "pruned" for row in pruned.read_trials())
        rounds = [len(store.read_all_rounds()) for store in (full, pruned)]
        found.append((shares[1] / shares[0], seconds[1] / seconds[0], rounds[1] / rounds[0]))
        print(
            f"seed {seed}: hypervolume {shares[0]:.4f} full, {shares[1]:.4f} pruned; "
            f"seconds {seconds[0]:.0f}, {seconds[1]:.0f}; rounds {rounds[0]}, {rounds[1]}; "
            f"{num_pruned} of {arguments.trials} pruned",
            flush=True,
        )
    kept, spent, run_rounds = zip(*found, strict=True)
    print(
        f"live, grace {config.grace_rounds}, factor {config.reduction_factor:g}: "
        f"hypervolume kept {spread(kept)}, seconds spent {spread(spent)}, rounds run {spread(run_rounds)}"
    )


def run(arguments: argparse.Namespace, results: str, seed: int, pruning: str, name: str) -> ResultsStore:
    """Run one search."""
    prepare_environment(local=True)  # before Ray is imported
    from pwfn.search.sweep import search

    overrides = ["search.sampler=random", f"search.pruning={pruning}", *arguments.overrides]
    space = SearchSpace.load(arguments.space, overrides, seed=seed, trials=arguments.trials)
    study = open_study(space, ResultsStore(results, name), command="benchmark")
    search(study, address=None, console=Console(file=sys.stderr, quiet=True))
    return study.store


def show_replay(results: str) -> None:
    """Print what each rule would have kept and spent, on the full searches in a folder."""
    names = sorted(path.name for path in Path(results).glob("full-*"))
    if not names:
        sys.exit(f"{results} holds no full-* searches; make them with --results {results}")
    print("| grace | factor | hypervolume kept | by fewer trials, as many seconds | seconds spent | trials pruned |")
    print("|---|---|---|---|---|---|")
    for grace, factor in RULES:
        outcomes = [outcome for name in names for outcome in replays(ResultsStore(results, name), grace, factor)]
        cells = [spread(column) for column in zip(*outcomes, strict=True)]
        print(f"| {grace} | {factor:g} | {' | '.join(cells)} |", flush=True)


def replays(store: ResultsStore, grace: int, factor: float) -> list[tuple[float, float, float, float]]:
    """Replay a search in many orders; return shares: hypervolume with and without pruning, seconds, trials pruned."""
    study = store.read_study()
    assert study is not None
    space = SearchSpace.from_resolved(study["space"])
    final = complete(store)
    curves = [store.read_rounds(trial_id) for trial_id in final["trial_id"]]
    whole, all_seconds = hypervolume(final, space.objectives, final).share, sum(map(seconds_of, curves))
    outcomes = []
    for order in range(ORDERS):
        referee = Referee(
            PruningConfig(grace_rounds=grace, reduction_factor=factor),
            space.objectives,
            lambda row: total_violation(space.constraints, row),
        )
        shuffled = np.random.default_rng(order).permutation(len(curves))
        ended, seconds = replay([curves[index] for index in shuffled], referee)
        fewer = first_trials([curves[index] for index in shuffled], seconds)
        kept, kept_by_fewer = (
            hypervolume(final[final["trial_id"].isin(those)], space.objectives, final).share / whole
            for those in (ended, fewer)
        )
        outcomes.append((kept, kept_by_fewer, seconds / all_seconds, 1 - len(ended) / len(curves)))
    return outcomes


def replay(curves: Sequence[list[dict[str, Any]]], referee: Referee) -> tuple[set[str], float]:
    """Let trials run side by side as they were recorded; return those that ran to their end, and the seconds spent."""
    waiting = list(reversed(curves))
    ended: set[str] = set()
    spent = 0.0
    running: list[tuple[float, int, int]] = []  # when the round ends, which curve, which round

    def start(now: float) -> None:
        if waiting:
            curve = waiting.pop()
            index = len(curves) - len(waiting) - 1
            heapq.heappush(running, (now + seconds_of(curve[:1]), index, 0))

    for _ in range(SLOTS):
        start(0.0)
    while running:
        now, index, round_index = heapq.heappop(running)
        curve = curves[index]
        spent += seconds_of(curve[round_index : round_index + 1])
        if round_index == len(curve) - 1:
            ended.add(curve[0]["trial_id"])
            start(now)
        elif referee.goes_on(curve[round_index]):
            following = seconds_of(curve[round_index + 1 : round_index + 2])
            heapq.heappush(running, (now + following, index, round_index + 1))
        else:
            start(now)
    return ended, spent


def first_trials(curves: Sequence[list[dict[str, Any]]], seconds: float) -> set[str]:
    """Which trials a search without pruning would have run to their ends in so many seconds."""
    ends = np.cumsum([seconds_of(curve) for curve in curves])
    return {curve[0]["trial_id"] for curve, end in zip(curves, ends, strict=True) if end <= seconds}


def complete(store: ResultsStore) -> pd.DataFrame:
    """The rows of the trials that ran to their end."""
    rows = pd.DataFrame(store.read_trials())
    return rows[rows["state"] == "complete"]


def seconds_of(rounds: Sequence[Row]) -> float:
    """Add up what rounds took."""
    return sum(float(row[phase]) for row in rounds for phase in PHASES)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.3f} +- {stdev(values) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
