"""The Pareto front and its hypervolume, by moocore. Objectives are turned so that smaller is better in this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.metrics import Array, metric, scaled, show

Mask = npt.NDArray[np.bool_]
Objectives = Mapping[str, str]
"""Metric -> `maximize` or `minimize`, as study.json declares it."""


def minimized_objectives(trials: pd.DataFrame, objectives: Objectives) -> Array:
    """Return the objectives `(num_trials, num_objectives)` on each metric's scale, turned so that smaller is better.

    This is the only place that negates. All of a row is NaN unless its trial is complete and has every objective,
    because pruned and failed trials have no result that could be on a front.
    """
    columns = [
        _cost(scaled(name, trials[name].to_numpy(np.float64, na_value=np.nan)), direction)
        for name, direction in objectives.items()
    ]
    matrix = np.stack(columns, axis=1)
    usable = np.isfinite(matrix).all(axis=1) & (trials["state"] == "complete").to_numpy(bool)
    return np.where(usable[:, None], matrix, np.nan)


def on_front(trials: pd.DataFrame, objectives: Objectives) -> Mask:
    """Mark `(num_trials,)` the trials that no other trial dominates, by being as good everywhere and better somewhere.

    Of trials with equal objectives, either all are marked or none.
    """
    matrix = minimized_objectives(trials, objectives)
    usable = np.isfinite(matrix).all(axis=1)
    mask = np.zeros(len(trials), dtype=bool)
    if usable.any():
        mask[usable] = moocore.is_nondominated(matrix[usable], keep_weakly=True)
    return mask


def front(trials: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """Select the trials on the front, best in the last objective first (by default: fewest values first)."""
    members = trials[on_front(trials, objectives)]
    order = np.lexsort((members["trial_id"].to_numpy(str), *minimized_objectives(members, objectives).T))
    return members.iloc[order]


@dataclass(frozen=True)
class Hypervolume:
    """What the front dominates, as a share in [0, 1] of the box from the worst to the best value of each objective."""

    share: float
    worst: dict[str, float]
    """The reference point, in each metric's own unit."""
    best: dict[str, float]

    @property
    def box(self) -> str:
        """The reference point and the ideal point, in words."""
        worst, best = (
            ", ".join(f"{metric(name).label} {show(name, value)}" for name, value in corner.items())
            for corner in (self.worst, self.best)
        )
        return f"reference point: {worst}; ideal: {best}; counts on a log2 scale"


def hypervolume(trials: pd.DataFrame, objectives: Objectives, among: pd.DataFrame | None = None) -> Hypervolume:
    """Measure the volume that the front dominates, on the metrics' scales.

    The reference point is accuracy 0 and 4,096 values (counts on a log2 scale). It is the same for every study, so that
    shares can be compared between studies and over time. For a metric without such a fixed span (size, seconds) the
    span is taken from the worst and the best complete trial of `among` (by default `trials`); such shares can be
    compared only if `among` is the same.
    """
    worst, best = _box(trials if among is None else among, objectives)
    [share] = _shares(minimized_objectives(trials, objectives), [len(trials)], worst, best, objectives)
    return Hypervolume(share, worst, best)


def hypervolume_shares(
    trials: pd.DataFrame, objectives: Objectives, among: pd.DataFrame, counts: Sequence[int]
) -> list[float]:
    """Return `hypervolume(...).share` of the first n trials, for each n in `counts`."""
    return _shares(minimized_objectives(trials, objectives), counts, *_box(among, objectives), objectives)


def _shares(
    matrix: Array, counts: Sequence[int], worst: dict[str, float], best: dict[str, float], objectives: Objectives
) -> list[float]:
    reference, ideal = minimized_objectives(pd.DataFrame([worst, best]).assign(state="complete"), objectives)
    extent = np.prod(reference - ideal)
    usable = np.flatnonzero(np.isfinite(matrix).all(axis=1))
    first = [np.maximum(matrix[usable[usable < count]], ideal) for count in counts]
    return [
        float(moocore.hypervolume(points, ref=reference) / extent) if len(points) and extent > 0 else 0.0
        for points in first
    ]


def _cost(values: Array, direction: str) -> Array:
    return -values if direction == "maximize" else values


def _box(trials: pd.DataFrame, objectives: Objectives) -> tuple[dict[str, float], dict[str, float]]:
    """Return the worst and the best value of each objective: the metric's span, or that of the complete trials."""
    worst, best = {}, {}
    for name, direction in objectives.items():
        span = metric(name)
        if span.low is not None and span.high is not None:
            low, high = span.low, span.high
        else:
            seen = trials.loc[trials["state"] == "complete", name].to_numpy(np.float64, na_value=np.nan)
            seen = seen[np.isfinite(scaled(name, seen))]
            low, high = (float(seen.min()), float(seen.max())) if len(seen) else (np.nan, np.nan)
        worst[name], best[name] = (low, high) if direction == "maximize" else (high, low)
    return worst, best
