"""The front of a search: trials that are complete, keep the constraints, and are dominated by no other."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from analysis.front import front
from pwfn.space.constraints import total_violation
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import Row


def feasible_front(rows: Iterable[Row], space: SearchSpace) -> list[Row]:
    """Select the rows of the trials on the front, best in the last objective first."""
    kept = [row for row in rows if total_violation(space.constraints, row) == 0]
    by_id = {row["trial_id"]: row for row in kept}
    return [by_id[trial_id] for trial_id in front(pd.DataFrame(kept), space.objectives)["trial_id"]] if kept else []
