"""Which of many points are best when several objectives count: an order, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from moocore import pareto_rank
from numpy.typing import NDArray

from pwfn.metrics import Direction

Floats = NDArray[np.float64]


def costs(row: Mapping[str, Any], objectives: Mapping[str, Direction]) -> tuple[float, ...]:
    """Read a row's objectives as numbers to be minimised; infinite where one is missing or not a number."""
    signs = {"minimize": 1.0, "maximize": -1.0}
    values = ((row.get(name), signs[direction]) for name, direction in objectives.items())
    return tuple(math.inf if value is None or math.isnan(value) else sign * value for value, sign in values)


def rank(values: Floats, violations: Floats | None = None, *, among: Floats | None = None) -> NDArray[np.int64]:
    """Place points by non-dominated sorting, within a front so that every beginning of it is spread out.

    Within a front the points come farthest first (Schmucker et al. 2021, section 3, epsilon-net): the best in the first
    objective, then always the one farthest from those before it. Distances are between ranks in each objective, so
    that no objective's scale matters. Points that violate a constraint come last, the least violation first.

    Args:
        values: `(points, objectives)`, all to be minimised.
        violations: `(points,)`, 0 where every constraint holds; None where there are none.
        among: `(others, objectives)` whose ranks measure distances, where the points are a choice of them: their own
            ranks would be evenly spaced, wherever they lie. None takes the points themselves.

    Returns:
        `(points,)`: the place of each point, 0 for the best. Equal points are placed in the order given.
    """
    places = np.empty(len(values), dtype=np.int64)
    violations = np.zeros(len(values)) if violations is None else violations
    positions = _positions(values, values if among is None else among)
    places[_order(values, violations, positions)] = np.arange(len(values))
    return places


def depths(values: Floats, violations: Floats) -> NDArray[np.int64]:
    """Sort points into fronts (non-dominated sorting), 0 for those that none dominates.

    Points that violate a constraint come behind all that violate none, each amount of violation on a front by itself.

    Args:
        values: `(points, objectives)`, all to be minimised.
        violations: `(points,)`, 0 where every constraint holds.

    Returns:
        `(points,)`: the front of each point.
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
    """Replace each objective by the place of its value among the distinct ones of `among`, as a share."""
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
