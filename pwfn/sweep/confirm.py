"""Replicates: runs the trials on the front again with other seeds, so that the front gets error bars."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from pwfn.naming import BASELINE, PointName
from pwfn.search.front import feasible_front
from pwfn.search.study import SearchStudy
from pwfn.space.constraints import is_finite
from pwfn.sweep.listed import Listed
from pwfn.sweep.ownership import Ownership
from pwfn.trial.rows import Row


class Confirmation(Listed):
    """Gives Tune the replicates that have not ended, as `{"number": 7, "trial_id": "0007-r1", "replicate": 1, ...}`.

    A replicate differs from its trial in the seed alone.

    The front is the front of the means over seeds, as in the report. A trial that is on the front only by luck leaves
    it when its replicates have ended, and the trial that takes its place has no replicates yet. So a new `Confirmation`
    may then find more to run; when it finds none, every trial on the front has as many seeds as were asked for.

    Args:
        study: whose front is confirmed.
        num_seeds: replicates of each trial on the front.
        ended: rows of the trials that have ended; None reads them.
        ownership: decides which of several drivers runs a trial; None where there is only one.
    """

    def __init__(
        self,
        study: SearchStudy,
        num_seeds: int,
        ended: Sequence[Row] | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        rows = study.store.read_trials() if ended is None else ended
        proposals = {each["trial_id"]: each for each in study.store.read_proposals()}
        begun = [each for each in proposals.values() if 1 <= each.get("replicate", 0) <= num_seeds]
        members = [proposals[trial_id] for trial_id in _front(study, rows) if trial_id in proposals]
        wanted = (_replicate(each, index) for each in members for index in range(1, num_seeds + 1))
        new = [each for each in wanted if each["trial_id"] not in proposals]
        super().__init__(study, [*begun, *new], proposals.keys(), {row["trial_id"] for row in rows}, ownership)


def _front(study: SearchStudy, ended: Sequence[Row]) -> list[str]:
    """Name the trials with a point on the front, each point judged by the mean over its seeds that are complete."""
    metrics = study.space.told_metrics
    seeds: dict[str, list[Row]] = {}
    for row in ended:
        if row["state"] == "complete" and all(is_finite(row[name]) for name in metrics):
            point = PointName.read(row["trial_id"])._replace(replicate=0)
            seeds.setdefault(str(point), []).append(row)
    means = [
        {"trial_id": point, "state": "complete", **{name: mean(row[name] for row in rows) for name in metrics}}
        for point, rows in seeds.items()
    ]
    members = feasible_front(means, study.space)
    return list(dict.fromkeys(PointName.read(each["trial_id"]).of_trial for each in members))


def _replicate(proposal: dict[str, Any], index: int) -> dict[str, Any]:
    same = {name: proposal[name] for name in ("number", "params", BASELINE) if name in proposal}
    return {**same, "trial_id": PointName(proposal["trial_id"], index).run, "replicate": index}
