"""Limits what a study keeps on disk: the networks of its best trials.

At any time there are at most `search.keep_models` compressed networks, one more for each trial that is just ending, and
one checkpoint for each trial that has not ended. Rows, rounds and codebooks of all trials are kept, so that each trial
can be reported, and can be run again if its network is wanted later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ray import tune
from rich.filesize import decimal

from pwfn.naming import PointName, counted
from pwfn.search.ranking import minimized_objectives, rank
from pwfn.search.study import SearchStudy
from pwfn.space.constraints import total_violation
from pwfn.trial.rows import Row


class Kept(NamedTuple):
    """A point whose network is on disk."""

    values: tuple[float, ...]
    """One number per objective, each to be minimised."""
    violation: float
    """By how much the trial violates the constraints together; 0 if it keeps all of them."""
    num_bytes: int


class Retention(tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """After each trial, deletes the networks that are not among the best; give it to Tune as a callback.

    The best trials are the first ones by non-dominated sorting; of the last front that has room, those that are spread
    out most (`pwfn.search.ranking.rank`). A network that was deleted would not be among the best later, because those
    that replaced it are better or spread the front further. Replicates get the room that is left, in the order of
    their trials, so that a lucky seed neither keeps a network nor removes one.

    Args:
        study: the study whose networks are kept.
        ended: rows of the trials that ended before this sweep.
    """

    def __init__(self, study: SearchStudy, ended: Iterable[Row]) -> None:
        self._space = study.space
        self._store = study.store
        self._kept: dict[str, Kept] = {}
        self.num_deleted = 0
        rows = {row["trial_id"]: row for row in ended}
        self._all = [
            minimized_objectives(row, self._space.objectives) for row in rows.values() if row["state"] == "complete"
        ]
        """Objectives of all complete trials; their ranks measure the distances between the trials that are kept."""
        for trial_id, num_bytes in self._store.model_sizes().items():
            if trial_id in rows:  # a trial without a row has not ended: it writes its network again
                self._take(rows[trial_id], num_bytes)
        self._delete_the_rest()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune pickles its callbacks for a restore that we do not use."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take up the networks that a trial has left, and delete the worst where there are too many."""
        for row in self._store.read_points(trial.config["trial_id"]):
            if row["size_bytes"] is not None:
                self._all.append(minimized_objectives(row, self._space.objectives))
                self._take(row, row["size_bytes"])
        self._delete_the_rest()

    @property
    def summary(self) -> str:
        """What is kept, in words."""
        size = decimal(sum(kept.num_bytes for kept in self._kept.values()))
        words = f"kept {counted(len(self._kept), 'network')} ({size})"
        if self.num_deleted:
            words += f", deleted {self.num_deleted}; --set search.keep_models=null keeps all"
        return words

    def _take(self, row: Mapping[str, Any], num_bytes: int) -> None:
        if row["state"] != "complete":  # it failed after its network was written
            self._store.delete_model(row["trial_id"])
            return
        violation = total_violation(self._space.constraints, row)
        self._kept[row["trial_id"]] = Kept(minimized_objectives(row, self._space.objectives), violation, num_bytes)

    def _delete_the_rest(self) -> None:
        limit = self._space.search.keep_models
        if limit is None or len(self._kept) <= limit:
            return
        for trial_id in self._best_first()[limit:]:
            self._store.delete_model(trial_id)
            del self._kept[trial_id]
            self.num_deleted += 1

    def _best_first(self) -> list[str]:
        searched = {trial_id: kept for trial_id, kept in self._kept.items() if not PointName.read(trial_id).replicate}
        values = np.array([kept.values for kept in searched.values()])
        violations = np.array([kept.violation for kept in searched.values()])
        ranks = rank(values, violations, among=np.array(self._all)) if searched else ()
        places = dict(zip(searched, ranks, strict=True))

        def key(trial_id: str) -> tuple[int, int, str]:
            point = PointName.read(trial_id)
            return point.replicate, int(places.get(str(point._replace(replicate=0)), len(places))), trial_id

        return sorted(self._kept, key=key)
