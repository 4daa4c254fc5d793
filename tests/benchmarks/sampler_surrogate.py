"""Compares samplers on a surrogate: trees that predict the results of trials, instead of training.

    python launchers/search.py --space pwfn_cifar10.yaml --study recorded --trials 80 --set search.sampler=random
    python tests/benchmarks/sampler_surrogate.py results/recorded --seeds 10 --trials 64

From the recorded trials of a random search (of several with different seeds, where several are given), extremely
randomised trees (Geurts et al. 2006) learn each metric after each round. Then each contestant searches the same space
with the same code as a real sweep, but a trial's rounds are what the trees say, without noise, and take the median
seconds of that round. So whole searches take seconds, for many seeds; how well the trees predict trials that they have
not seen is printed first. What they cannot show: luck of training, and what lies beyond the recorded trials.
`samplers.py` compares by real searches.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import pandas as pd
from printed import hardware
from pruning import PHASES
from samplers import CONTESTANTS, show, space_of
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict

from pwfn.results.store import ResultsStore
from pwfn.search.proposer import Proposer
from pwfn.search.pruning import PREDICTED_BY, referee_of
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import Row, commit

FOLDS = 5
TREES = 100


def main() -> None:
    """Print how well the surrogate predicts, then the table of the contestants."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="folder, its trials drawn at random")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=64, help="per search")
    parser.add_argument("--slots", type=int, default=2, help="trials at once")
    arguments = parser.parse_args()
    print(f"{hardware('cpu')}, commit {commit()}")
    surrogate = Surrogate([ResultsStore(str(study.parent), study.name) for study in arguments.studies])
    for name, correlation in surrogate.held_out().items():
        print(f"{name} of trials not seen: Spearman's correlation with what was measured {correlation:.2f}")
    found = {
        name: [
            search(surrogate, space_of(surrogate.space, name, seed, arguments.trials), arguments.slots)
            for seed in range(arguments.seeds)
        ]
        for name in CONTESTANTS
    }
    budget = min(trials["seconds"].max() for searches in found.values() for trials in searches)
    show(found, surrogate.space.objectives, budget)


class Surrogate:
    """Predicts the rounds of a trial from its parameters.

    Args:
        stores: of studies of one space with complete trials.
    """

    def __init__(self, stores: Sequence[ResultsStore]) -> None:
        self.space = the_space(stores)
        wanted = [*self.space.told_metrics, *(PREDICTED_BY.get(name, name) for name in self.space.objectives)]
        recorded = [trial for store in stores for trial in complete_trials(store)]
        if len(recorded) < FOLDS:
            sys.exit(f"{len(recorded)} complete trials are too few to learn from: at least {FOLDS}")
        proposals = [proposal for proposal, _ in recorded]
        curves = [curve for _, curve in recorded]
        self.metrics = [name for name in dict.fromkeys(wanted) if name in curves[0]]
        self.rounds = curves[0][["method", "round", "fraction"]].to_dict("records")
        self.seconds = np.median([curve[list(PHASES)].sum(axis=1) for curve in curves], axis=0)
        self._columns = encode(proposals).columns
        self._features = self._encode(proposals)
        self._targets = np.stack([curve[self.metrics].to_numpy(float).ravel() for curve in curves])
        self._trees = trees().fit(self._features, self._targets)
        print(f"{len(curves)} trials of {len(self.rounds)} rounds recorded, {self.seconds.sum():.0f} s each")

    def held_out(self) -> dict[str, float]:
        """Correlate the last round's metrics with the predictions of trees that have not seen the trial."""
        told = cross_val_predict(trees(), self._features, self._targets, cv=FOLDS)
        last = pd.DataFrame(self._targets[:, -len(self.metrics) :], columns=self.metrics)
        return last.corrwith(pd.DataFrame(told[:, -len(self.metrics) :], columns=self.metrics), method="spearman")

    def curve(self, params: dict[str, Any]) -> list[Row]:
        """Predict the rows of a trial's rounds."""
        [told] = self._trees.predict(self._encode([params]))
        values = told.reshape(len(self.rounds), -1)
        return [
            {**row, **dict(zip(self.metrics, metrics, strict=True))}
            for row, metrics in zip(self.rounds, values, strict=True)
        ]

    def _encode(self, settings: Sequence[dict[str, Any]]) -> pd.DataFrame:
        return encode(settings).reindex(columns=self._columns, fill_value=0)


def the_space(stores: Sequence[ResultsStore]) -> SearchSpace:
    """Read the space of several studies, which may differ only in their seeds."""
    spaces = []
    for store in stores:
        card = store.read_study()
        if card is None:
            sys.exit(f"{store.results}/{store.study} is no study")
        spaces.append(space_of(SearchSpace.from_resolved(card["space"]), "random", seed=0, num_trials=1))
    for store, space in zip(stores, spaces, strict=True):
        if space != spaces[0]:
            sys.exit(f"{store.results}/{store.study} searches another space than {stores[0].results}/{stores[0].study}")
    return spaces[0]


def complete_trials(store: ResultsStore) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Read the parameters and the rounds of each complete trial."""
    ended = {row["trial_id"] for row in store.read_trials() if row["state"] == "complete"}
    return [
        (proposal["params"], pd.DataFrame(store.read_rounds(proposal["trial_id"])))
        for proposal in store.read_proposals()
        if proposal["trial_id"] in ended
    ]


def encode(settings: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Encode a setting: numbers as they are, choices as one column each, and -1 for fields that it does not have."""
    return pd.get_dummies(pd.DataFrame(list(settings)), dtype=float).fillna(-1).astype(float)


def trees() -> ExtraTreesRegressor:
    """Make an estimator that is not trained yet."""
    return ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)


def search(surrogate: Surrogate, space: SearchSpace, num_slots: int) -> pd.DataFrame:
    """Search as a sweep does, but with predicted rounds and recorded times; return the trials."""
    proposer = Proposer(space)
    referee = referee_of(space)
    ended: list[Row] = []
    running: list[tuple[float, int, int, list[Row]]] = []  # when the round ends, trial's number, round, its curve
    seconds = 0.0  # of all trials that have ended

    def begin(now: float) -> None:
        proposal = proposer.ask()
        if proposal is not None:
            trial = {"trial_id": f"{proposal.number:04d}", "number": proposal.number}
            curve = [{**trial, **row} for row in surrogate.curve(proposal.params)]
            heapq.heappush(running, (now + surrogate.seconds[0], proposal.number, 0, curve))

    for _ in range(num_slots):
        begin(0.0)
    while running:
        now, number, index, curve = heapq.heappop(running)
        is_last = index == len(curve) - 1
        if not is_last and (referee is None or referee.goes_on(curve[index])):
            heapq.heappush(running, (now + surrogate.seconds[index + 1], number, index + 1, curve))
            continue
        state = "complete" if is_last else "pruned"
        proposer.tell(number, state, curve[index])
        seconds += surrogate.seconds[: index + 1].sum()
        ended.append({**curve[index], "state": state, "seconds": seconds})
        begin(now)
    return pd.DataFrame(ended)


if __name__ == "__main__":
    main()
