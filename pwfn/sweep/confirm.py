"""Replicates: the trials on the front again with other seeds, so that the front has error bars."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

from ray.tune.search import Searcher

from pwfn.search.front import feasible_front
from pwfn.search.study import Study
from pwfn.space.constraints import is_finite
from pwfn.trial.rows import Row

MARK = "-r"
"""Between a trial's name and the number of its replicate."""


class Replicate(NamedTuple):
    """Which trial is run again, and with which of the other seeds: from 1, and 0 is the trial itself."""

    of_trial: str
    seed_index: int


class Confirmation(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Gives Tune the replicates that have not ended, as `{"number": 7, "trial_id": "0007-r1", "replicate": 1, ...}`.

    A replicate differs from its trial in the seed alone. All are written to the study's folder before the first starts,
    and what is written there runs.

    The front is that of the means over seeds, as in the report: a trial that is there by luck leaves it with its
    replicates, and what takes its place has none yet. So once these have ended a new `Confirmation` may find more; when
    it finds none, the whole front has as many seeds as are asked for.

    Args:
        study: whose front is confirmed; nobody is told how its replicates end.
        num_seeds: replicates of each trial on the front.
        ended: rows of the trials that have ended; None reads them.
    """

    def __init__(self, study: Study, num_seeds: int, ended: Sequence[Row] | None = None) -> None:
        super().__init__()
        rows = study.store.read_trials() if ended is None else ended
        proposals = {each["trial_id"]: each for each in study.store.read_proposals()}
        replicates = [each for each in proposals.values() if 1 <= each.get("replicate", 0) <= num_seeds]
        members = [proposals[trial_id] for trial_id in _front(study, rows)]
        for replicate in (_replicate(each, index) for each in members for index in range(1, num_seeds + 1)):
            if replicate["trial_id"] not in proposals:
                study.store.write_proposal(replicate["trial_id"], replicate)
                replicates.append(replicate)
        ended_ids = {row["trial_id"] for row in rows}
        self._pending = [replicate for replicate in replicates if replicate["trial_id"] not in ended_ids]
        self.num_left = len(self._pending)
        """Replicates that had not ended when this began."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next replicate, or FINISHED."""
        return self._pending.pop(0) if self._pending else str(Searcher.FINISHED)

    def stop(self) -> None:
        """Propose nothing from now on."""
        self._pending.clear()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing: what is proposed next does not depend on it."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing into Tune's snapshots: the study's folder has all."""


def replicate_of(trial_id: str) -> Replicate:
    """Read from a trial's name what it repeats."""
    of_trial, _, index = trial_id.partition(MARK)
    return Replicate(of_trial, int(index or 0))


def _front(study: Study, ended: Sequence[Row]) -> list[str]:
    """Name the trials that are on the front, each judged by the mean over its seeds that are complete."""
    metrics = study.space.told_metrics
    seeds: dict[str, list[Row]] = {}
    for row in ended:
        if row["state"] == "complete" and all(is_finite(row[name]) for name in metrics):
            seeds.setdefault(replicate_of(row["trial_id"]).of_trial, []).append(row)
    means = [
        {"trial_id": trial_id, "state": "complete", **{name: mean(row[name] for row in rows) for name in metrics}}
        for trial_id, rows in seeds.items()
    ]
    return [each["trial_id"] for each in feasible_front(means, study.space)]


def _replicate(proposal: dict[str, Any], index: int) -> dict[str, Any]:
    same = {name: proposal[name] for name in ("number", "params")}
    return {**same, "trial_id": f"{proposal['trial_id']}{MARK}{index}", "replicate": index}
