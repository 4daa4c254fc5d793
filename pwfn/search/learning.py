"""What a search learns from a trial that may have left several points: one of its stages, or all of them together."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pwfn.results.store import ResultsStore
from pwfn.space.constraints import total_violation
from pwfn.space.declaration import HYPERVOLUME
from pwfn.space.space import SearchSpace

Row = dict[str, Any]


def lesson(space: SearchSpace, store: ResultsStore, row: Row) -> Row:
    """Turn the row of a trial that has ended into what the sampler is told of it: `space.learned_metrics` among others.

    Args:
        space: `search.stage` says what counts: `last` is the trial's own row; a number is that stage, or the last one
            of a trial with fewer; `hypervolume` is the hypervolume of all its points that keep the constraints.
        store: where the rows of its earlier stages are.
        row: of the trial; where it is not complete it is returned as it is.
    """
    stage = space.search.stage
    if stage == "last" or row.get("state") != "complete":
        return row
    points = store.read_points(row["trial_id"])
    if stage == HYPERVOLUME:
        from analysis.front import hypervolume  # with the whole report: seconds, in each process of a trial

        feasible = [point for point in points if total_violation(space.constraints, point) == 0]
        share = hypervolume(pd.DataFrame(feasible), space.objectives).share if feasible else 0.0
        return {**row, HYPERVOLUME: share}
    return {**points[min(int(stage), len(points) - 1)], "trial_id": row["trial_id"]}
