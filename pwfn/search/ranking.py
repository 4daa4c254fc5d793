"""Orders points by several objectives, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from moocore import pareto_rank
from numpy.typing import NDArray

from pwfn.metrics import Direction

Floats = NDArray[np.float64]


def minimized_objectives(row: Mapping[str, Any], objectives: Mapping[str, Direction]) -> tuple[float, ...]:
    """Read the objectives of a row as numbers to be minimised; infinity stands for one that is missing or NaN."""
    signs = {"minimize": 1.0, "maximize": -1.0}
    values = ((row.get(name), signs[direction]) for name, direction in objectives.items())
    return tuple(math.inf if value is None or math.isnan(value) else sign * value for value, sign in values)


def rank(values: Floats, violations: Floats | None = None, *, among: Floats | None = None) -> NDArray[np.int64]:
    """Rank points by non-dominated sorting; the order within a front keeps the first points of it spread out.

    Within a front, first comes the point that is best in the first objective, then always the point that is farthest
    from those chosen before it (Schmucker et al. 2021, section 3, epsilon-net). Distances are measured between the
    ranks of points in each objective, so that the scale of an objective does not matter. Points that violate a
    constraint come last, the smallest violation first.

    Args:
        values: `(points, objectives)`, all to be minimised.
        violations: `(points,)`, 0 for a point that keeps every constraint; None if there are no constraints.
        among: `(others, objectives)`: the larger set from which the points were chosen. Distances are measured by
            ranks in this set, because the ranks within a few chosen points are evenly spaced wherever they lie. None
            takes the points themselves.

    Returns:
        `(points,)`: the rank of each point, 0 for the best. Equal points keep the order in which they are given.
    """
    places = np.empty(len(values), dtype=np.int64)
    violations = np.zeros(len(values)) if violations is None else violations
    positions = _positions(values, values if among is None else among)
    places[_order(values, violations, positions)] = np.arange(len(values))
    return places


def depths(values: Floats, violations: Floats) -> NDArray[np.int64]:
    """Sort points into fronts (non-dominated sorting); front 0 holds the points that no other dominates.

    Points that violate a constraint come after all points that do not; those with the same total violation share a
    front.

    Args:
        values: `(points, objectives)`, all to be minimised.
        violations: `(points,)`, 0 for a point that keeps every constraint.

    Returns:
        `(points,)`: the number of each point's front.
    """
    fronts = np.empty(len(values), dtype=np.int64)
    feasible = violations <= 0
    if feasible.any():
        fronts[feasible] = pareto_rank(values[feasible])
    _, amounts = np.unique(violations[~feasible], return_inverse=True)
    fronts[~feasible] = len(values) + amounts
    return fronts


def _order(values: Floats, violations: Floats, positions: Floats) -> NDArray[np.int64]:
    fronts, feasible = depths(values, violations), violations <= 0
    infeasible = np.flatnonzero(~feasible)
    ordered = [_farthest_first(np.flatnonzero(fronts == front), positions) for front in np.unique(fronts[feasible])]
    return np.concatenate([*ordered, infeasible[np.argsort(fronts[infeasible], kind="stable")]]).astype(np.int64)


def _positions(values: Floats, among: Floats) -> Floats:
    """Replace each objective by the rank of its value among the distinct values of `among`, scaled to [0, 1]."""
    distinct = [np.unique(column) for column in among.T]
    places = [
        np.searchsorted(known, column) / max(len(known) - 1, 1)
        for known, column in zip(distinct, values.T, strict=True)
    ]
    return np.stack(places, axis=1)


def _farthest_first(members: NDArray[np.int64], positions: Floats) -> NDArray[np.int64]:
    points = positions[members]
    chosen = [int(points[:, 0].argmin())]
    distance = np.full(len(members), np.inf)
    for _ in range(len(members) - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return members[chosen]
