"""Measures what pruning with several objectives saves and costs: training seconds, and hypervolume of the front.

    python tests/benchmarks/pruning.py                       live: whole searches with and without pruning, five seeds
    python tests/benchmarks/pruning.py --replay RESULTS      recorded: what rules would have done to those searches

Live, each seed searches the digits space twice with the random sampler, so both searches propose the same trials; the
difference is pruning alone. Recorded, every order of arrival is drawn anew from the full learning curves of the live
searches. Beside both stands a control: fewer trials without pruning, in as many seconds. Hypervolume is a share of that
of all trials of the seed. A round counts with the median seconds of that round over the search's trials, so that what
else the machine does counts for nothing. Cells are mean +- standard deviation over the seeds, of the mean over orders;
what pruning gains over the control is mean +- standard error.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import pandas as pd
from printed import hardware, spread, standard_error
from rich.console import Console

from analysis.front import hypervolume
from pwfn.results.store import ResultsStore
from pwfn.search.pruning import Referee
from pwfn.search.study import open_study
from pwfn.space.constraints import total_violation
from pwfn.space.declaration import PruningConfig
from pwfn.space.space import SearchSpace
from pwfn.sweep.cluster import prepare_environment
from pwfn.trial.rows import Row, commit

RULES = [(1, 2.0), (2, 2.0), (3, 2.0), (3, 3.0), (4, 2.0), (5, 2.0)]
"""Grace rounds and reduction factors that are replayed."""
SLOTS = 2
"""Number of trials that run at the same time in a replay."""
ORDERS = 20
"""Number of orders of arrival that are drawn for each recorded search."""
COLUMNS = "hypervolume kept | by fewer trials, as many seconds | seconds spent | trials pruned"
PHASES = ("train_seconds", "fix_seconds", "eval_seconds")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="digits", help="the space that is searched")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", dest="overrides")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
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
    """Search with and without pruning, and print the results of each seed."""
    config = PruningConfig()
    if arguments.pruning is not None:
        grace, factor = arguments.pruning
        config = PruningConfig(grace_rounds=int(grace), reduction_factor=factor)
    print(f"| seed | {COLUMNS} | rounds run |\n|---|---|---|---|---|---|")
    found = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        full = run(arguments, results, seed, "null", f"full-{seed}")
        pruned = run(arguments, results, seed, config.model_dump_json(), f"pruned-{seed}")
        recorded = Recorded(full)
        rounds = pruned.read_all_rounds()
        seconds = recorded.seconds_of(rounds)
        kept = recorded.share(complete(pruned)["trial_id"])
        fewer = recorded.share(recorded.first_trials(range(arguments.trials), seconds))
        num_pruned = sum(row["state"] == "pruned" for row in pruned.read_trials())
        shares = seconds / recorded.all_seconds, num_pruned / arguments.trials, len(rounds) / recorded.num_rounds
        found.append((kept, fewer, *shares))
        print(f"| {seed} | {' | '.join(f'{cell:.3f}' for cell in found[-1])} |", flush=True)
    print(f"live, grace {config.grace_rounds}, factor {config.reduction_factor:g}: {' | '.join(summary(found))}")


def run(arguments: argparse.Namespace, results: str, seed: int, pruning: str, name: str) -> ResultsStore:
    """Run one search."""
    prepare_environment(local=True)  # before Ray is imported
    from pwfn.sweep.sweep import search

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
    searches = [Recorded(ResultsStore(results, name)) for name in names]
    print(f"replay of {len(searches)} searches in {ORDERS} orders each, {SLOTS} trials at once")
    print(f"| grace | factor | {COLUMNS} | gain |\n|---|---|---|---|---|---|---|")
    for grace, factor in RULES:
        config = PruningConfig(grace_rounds=grace, reduction_factor=factor)
        outcomes = [np.mean([replay(search, config, order) for order in range(ORDERS)], axis=0) for search in searches]
        print(f"| {grace} | {factor:g} | {' | '.join(summary(outcomes))} |", flush=True)


def summary(outcomes: Sequence[Sequence[float]]) -> list[str]:
    """Spread of each column over the seeds, and the mean gain of the first over the second with its standard error."""
    gains = [kept - fewer for kept, fewer, *_ in outcomes]
    columns = zip(*outcomes, strict=True)
    return [*(spread(column) for column in columns), f"{mean(gains):+.4f} +- {standard_error(gains):.4f}"]


class Recorded:
    """A search without pruning: the learning curves, seconds and results of its trials."""

    def __init__(self, store: ResultsStore) -> None:
        study = store.read_study()
        assert study is not None
        self.space = SearchSpace.from_resolved(study["space"])
        self.final = complete(store).sort_values("number")
        self.curves = [store.read_rounds(trial_id) for trial_id in self.final["trial_id"]]
        longest = max(map(len, self.curves))
        each = [[sum(c[i][phase] for phase in PHASES) for c in self.curves if i < len(c)] for i in range(longest)]
        self.seconds_of_round = [median(seconds) for seconds in each]
        self.all_seconds = sum(map(self.seconds_of, self.curves))
        self.num_rounds = sum(map(len, self.curves))
        self.whole = 1.0
        self.whole = self.share(self.final["trial_id"])

    def share(self, trial_ids: Iterable[str]) -> float:
        """Return the hypervolume of some trials as a share of that of all trials."""
        chosen = self.final[self.final["trial_id"].isin(list(trial_ids))]
        return hypervolume(chosen, self.space.objectives, self.final).share / self.whole

    def seconds_of(self, rounds: Iterable[Row]) -> float:
        """Return the seconds that rounds take."""
        return sum(self.seconds_of_round[row["round"]] for row in rounds)

    def first_trials(self, order: Iterable[int], seconds: float) -> set[str]:
        """Return the trials that a search without pruning would have completed in so many seconds."""
        curves = [self.curves[index] for index in order]
        ends = np.cumsum([self.seconds_of(curve) for curve in curves])
        return {curve[0]["trial_id"] for curve, end in zip(curves, ends, strict=True) if end <= seconds}


def replay(search: Recorded, config: PruningConfig, seed: int) -> tuple[float, float, float, float]:
    """Replay a search in a random order; return shares: hypervolume with and without pruning, seconds, pruned."""
    order = [int(index) for index in np.random.default_rng(seed).permutation(len(search.curves))]
    space = search.space
    referee = Referee(config, space.objectives, lambda row: total_violation(space.constraints, row))
    ended, seconds = run_side_by_side(search, order, referee)
    kept, fewer = search.share(ended), search.share(search.first_trials(order, seconds))
    return kept, fewer, seconds / search.all_seconds, 1 - len(ended) / len(order)


def run_side_by_side(search: Recorded, order: Sequence[int], referee: Referee) -> tuple[set[str], float]:
    """Replay recorded trials with a pruning rule; return those that were completed, and the seconds spent."""
    waiting = list(reversed(order))
    ended: set[str] = set()
    spent, num_started = 0.0, 0
    running: list[tuple[float, int, int, int]] = []  # when the round ends, which start, which curve, which round

    def begin(now: float, index: int, round_index: int) -> None:
        nonlocal num_started
        num_started += 1
        heapq.heappush(running, (now + search.seconds_of_round[round_index], num_started, index, round_index))

    for _ in range(SLOTS):
        begin(0.0, waiting.pop(), 0)
    while running:
        now, _, index, round_index = heapq.heappop(running)
        curve = search.curves[index]
        spent += search.seconds_of_round[round_index]
        is_last = round_index == len(curve) - 1
        if is_last:
            ended.add(curve[0]["trial_id"])
        if not is_last and referee.goes_on(curve[round_index]):
            begin(now, index, round_index + 1)
        elif waiting:
            begin(now, waiting.pop(), 0)
    return ended, spent


def complete(store: ResultsStore) -> pd.DataFrame:
    """Return the rows of the completed trials."""
    rows = pd.DataFrame(store.read_trials())
    return rows[rows["state"] == "complete"]


if __name__ == "__main__":
    main()
