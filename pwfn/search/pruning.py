"""Which trials are worth their remaining rounds, judged by several objectives (after MO-ASHA, Schmucker et al. 2021).

After some of its rounds, the rungs, a trial is ranked among all trials that have come as far; the best share of them
goes on. What a trial had at a rung is compared with rungs alone and never told as its result.

Two things differ from the paper, because they kept more of the front for the time they saved (CHANGELOG): fronts go on
whole, where the paper takes some of the last one; and entropy stands for counts of values.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pwfn.metrics import METRICS, Direction
from pwfn.search.ranking import costs, depths
from pwfn.space.constraints import total_violation
from pwfn.space.declaration import PruningConfig
from pwfn.space.space import SearchSpace

FORETOLD_BY = {name: metric.foretold_by for name, metric in METRICS.items() if metric.foretold_by is not None}
"""What stands for a metric after a few rounds."""
RUNG_SPACING = 3
"""Each rung comes after so many times as many rounds."""


class Rung(NamedTuple):
    """Trials meet here: after the same round of the same method, with the same share of the weights fixed."""

    method: str
    round: int
    """Counts from 0."""
    fraction: float


class Standing(NamedTuple):
    """What one trial had reached at a rung."""

    number: int
    values: tuple[float, ...]
    """One per objective, to be minimised; not finite is the worst."""
    violation: float
    """Of the constraints; 0 where all hold."""


class Referee:
    """Judges trials at rungs: rounds `grace_rounds`, then each `RUNG_SPACING` times as far.

    Those that have reached the rung so far, the trial included, are sorted into fronts (non-dominated sorting). It goes
    on unless at least 1/`reduction_factor` of them are on better fronts than it is; so nothing ends a trial that none
    dominates. While there are no more than `reduction_factor` of them, every trial goes on.

    Args:
        config: grace period and reduction factor.
        objectives: metrics of a round, and their direction.
        violation: how far a round's metrics violate the constraints together, 0 where all hold.
        batch: with batches of this size a trial is compared with earlier batches only, so that no verdict depends on
            who came first; None compares with all.
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
        """Take up what trials of an earlier run had reached, from the rows of their rounds."""
        for row in rounds:
            self._note(row)

    def goes_on(self, row: Mapping[str, Any]) -> bool:
        """Judge a trial by the row of the round that it has just finished; asked again, it answers anew."""
        rung = self._note(row)
        if rung is None:
            return True
        mine = self._standings[rung][row["trial_id"]]
        others = [each for trial_id, each in self._standings[rung].items() if trial_id != row["trial_id"]]
        peers = [mine, *(each for each in others if self._is_peer(each, mine))]
        if len(peers) <= self.config.reduction_factor:
            return True
        values = np.nan_to_num(np.array([each.values for each in peers]))  # what is not finite is largest
        fronts = depths(values, np.array([each.violation for each in peers]))
        return bool((fronts < fronts[0]).sum() < len(peers) / self.config.reduction_factor)

    def _is_peer(self, other: Standing, mine: Standing) -> bool:
        return self.batch is None or other.number // self.batch < mine.number // self.batch

    def _note(self, row: Mapping[str, Any]) -> Rung | None:
        """Record a standing where the round is a rung, and return the rung."""
        if not self._is_rung(row["round"] + 1):
            return None
        rung = Rung(row["method"], row["round"], row["fraction"])
        values = costs(row, {FORETOLD_BY.get(name, name): direction for name, direction in self.objectives.items()})
        self._standings[rung][row["trial_id"]] = Standing(row["number"], values, self.violation(row))
        return rung

    def _is_rung(self, num_rounds: int) -> bool:
        rung = self.config.grace_rounds
        while rung < num_rounds:
            rung *= RUNG_SPACING
        return rung == num_rounds


def referee_of(space: SearchSpace) -> Referee | None:
    """Make the judge that a space asks for; None where it prunes nothing."""
    search = space.search
    if search.pruning is None:
        return None
    violation = functools.partial(total_violation, space.constraints)
    return Referee(search.pruning, space.objectives, violation, search.batch)
