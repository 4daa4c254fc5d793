"""Which trials are worth their remaining rounds, judged by several objectives (after MO-ASHA, Schmucker et al. 2021).

After certain rounds, the rungs, a trial is ranked among all trials that have reached the same rung, and only the best
share of them goes on. What a trial has at a rung is compared with other trials at that rung only; the sampler is never
told it as the trial's result.

Two things differ from the paper, because they kept more of the front for the time they saved (docs/log.md, "Does ending
trials early keep the front for less time?"). A front goes on whole, where the paper cuts the last one. And where an
objective counts values, trials are compared by the entropy of the values, which tells more about the final count.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pwfn.metrics import METRICS, Direction
from pwfn.search.ranking import depths, minimized_objectives
from pwfn.space.constraints import total_violation
from pwfn.space.declaration import PruningConfig
from pwfn.space.space import SearchSpace

PREDICTED_BY = {name: metric.predicted_by for name, metric in METRICS.items() if metric.predicted_by is not None}
"""Metrics that are compared in the place of others while a trial runs, as they predict the final values better."""
RUNG_SPACING = 3
"""Each rung comes after this many times as many rounds as the one before."""


class Rung(NamedTuple):
    """A point at which trials are compared: the same round of the same method, with the same share of weights fixed."""

    method: str
    round: int
    """Counts from 0."""
    fraction: float


class Standing(NamedTuple):
    """What one trial has reached at a rung."""

    number: int
    values: tuple[float, ...]
    """One number per objective, each to be minimised; a number that is not finite is worse than any other."""
    violation: float
    """By how much the trial violates the constraints together; 0 if it keeps all of them."""


class Referee:
    """Judges trials at rungs: after round `grace_rounds`, then each time after `RUNG_SPACING` times as many rounds.

    All trials that have reached the rung, this one included, are sorted into fronts (non-dominated sorting). The trial
    goes on unless at least 1/`reduction_factor` of them are on better fronts than it is, so a trial that no other
    dominates always goes on. As long as at most `reduction_factor` trials have reached the rung, all of them go on.

    Args:
        config: grace period and reduction factor.
        objectives: metrics that are known after a round, and the direction of each.
        violation: says by how much the metrics of a round violate the constraints together; 0 if all are kept.
        batch: number of trials in a batch; a trial is then compared with trials of earlier batches only, so that no
            decision depends on which trial came first. None compares it with all.
    """

    def __init__(
        self,
        config: PruningConfig,
        objectives: Mapping[str, Direction],
        violation: Callable[[Mapping[str, Any]], float],
        batch: int | None = None,
    ) -> None:
        self.config = config
        self.objectives = objectives
        self.violation = violation
        self.batch = batch
        self._standings: defaultdict[Rung, dict[str, Standing]] = defaultdict(dict)

    def recall(self, rounds: Iterable[Mapping[str, Any]]) -> None:
        """Note what trials of an earlier run reached, from the rows of their rounds."""
        for row in rounds:
            self._note(row)

    def goes_on(self, row: Mapping[str, Any]) -> bool:
        """Judge a trial by the row of the round that it has just finished, among the trials known at this moment."""
        rung = self._note(row)
        if rung is None:
            return True
        mine = self._standings[rung][row["trial_id"]]
        others = [each for trial_id, each in self._standings[rung].items() if trial_id != row["trial_id"]]
        peers = [mine, *(each for each in others if self._is_peer(each, mine))]
        if len(peers) <= self.config.reduction_factor:
            return True
        values = np.nan_to_num(np.array([each.values for each in peers]))  # infinity becomes the largest float
        fronts = depths(values, np.array([each.violation for each in peers]))
        return bool((fronts < fronts[0]).sum() < len(peers) / self.config.reduction_factor)

    def _is_peer(self, other: Standing, mine: Standing) -> bool:
        return self.batch is None or other.number // self.batch < mine.number // self.batch

    def _note(self, row: Mapping[str, Any]) -> Rung | None:
        """If the round is a rung, note what the trial has reached there and return the rung; else return None."""
        if not self._is_rung(row["round"] + 1):
            return None
        rung = Rung(row["method"], row["round"], row["fraction"])
        values = minimized_objectives(
            row, {PREDICTED_BY.get(name, name): direction for name, direction in self.objectives.items()}
        )
        self._standings[rung][row["trial_id"]] = Standing(row["number"], values, self.violation(row))
        return rung

    def _is_rung(self, num_rounds: int) -> bool:
        rung = self.config.grace_rounds
        while rung < num_rounds:
            rung *= RUNG_SPACING
        return rung == num_rounds


def referee_of(space: SearchSpace) -> Referee | None:
    """Make the referee that a space asks for; None if the space prunes nothing."""
    search = space.search
    if search.pruning is None:
        return None
    violation = functools.partial(total_violation, space.constraints)
    return Referee(search.pruning, space.objectives, violation, search.batch)
