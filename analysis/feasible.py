"""Decides which complete trials keep the bounds that their study declares; others are infeasible, on no front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.metrics import show
from pwfn.metrics import Bound, share_missed

INFEASIBLE = "infeasible"
FINISHED = ("complete", INFEASIBLE)
STATES = (*FINISHED, "pruned", "failed")
"""States of a trial in a report. The files do not have the state infeasible; there such a trial is complete."""
Constraints = Mapping[str, Mapping[Bound, float]]
"""Metric -> `min`, `max`, or `max_drop` (below the float network), as study.json declares it."""


def judged(trials: pd.DataFrame) -> pd.DataFrame:
    """Set the state of finished trials to complete or infeasible by the column `violation`, if there is one."""
    if "violation" not in trials:
        return trials
    finished = trials["state"].isin(FINISHED)
    states = np.where(trials["violation"] <= 0, "complete", INFEASIBLE)
    return trials.assign(state=trials["state"].where(~finished, pd.Series(states, trials.index, dtype=object)))


def violation(trials: pd.DataFrame, constraints: Constraints) -> pd.Series[float]:
    """By what share of its bound the worst constraint is missed: at most 0 where all hold, NaN without the metric.

    The mean over seeds is that of their configuration.
    """
    return _misses(trials, constraints).max(axis=1, skipna=False)


def _bounds(constraints: Constraints) -> list[tuple[str, Bound, float]]:
    return [(metric, kind, bound) for metric, bounds in constraints.items() for kind, bound in bounds.items()]


def _misses(trials: pd.DataFrame, constraints: Constraints) -> pd.DataFrame:
    """By what share each trial misses each bound: a column for each of `_bounds`."""
    return pd.concat([_missed(trials, *each) for each in _bounds(constraints)], axis=1)


def _missed(trials: pd.DataFrame, metric: str, kind: Bound, bound: float) -> pd.Series[float]:
    columns = [metric, f"float_{metric}"] if kind == "max_drop" else [metric]
    shares = [share_missed(kind, bound, *row) for row in trials[columns].itertuples(index=False)]
    return pd.Series(shares, trials.index, dtype=float)


def nearest_miss(trials: pd.DataFrame, constraints: Constraints) -> str | None:
    """Say which finished trial comes nearest to the bounds where none keeps them, and what it misses; else None."""
    finished = trials[trials["state"].isin(FINISHED)]
    if not constraints or finished.empty or (finished["state"] != INFEASIBLE).any():
        return None
    misses = _misses(finished, constraints)
    together = misses.clip(lower=0).sum(axis=1, skipna=False)
    if together.isna().all():
        return None
    place = int(together.argmin())
    nearest, shares = finished.iloc[place], misses.iloc[place]
    missed = [
        _miss_words(nearest, *each) for each, share in zip(_bounds(constraints), shares, strict=True) if not share <= 0
    ]
    return f"no trial keeps the constraints; the nearest is {nearest['trial_id']}: {', '.join(missed)}"


def _miss_words(trial: pd.Series[Any], metric: str, kind: Bound, bound: float) -> str:
    if kind == "max_drop":
        kind, bound = "min", trial[f"float_{metric}"] - bound
    wanted = "at least" if kind == "min" else "at most"
    return f"{metric} is {show(metric, trial[metric])}, but {wanted} {show(metric, bound)} is asked for"
