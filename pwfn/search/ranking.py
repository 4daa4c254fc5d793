"""Which of many points are best when several objectives count: an order, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from moocore import pareto_rank
from numpy.typing import NDArray

from pwfn.search.declaration import Direction

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


def _order(values: Floats, violations: Floats, positions: Floats) -> NDArray[np.int64]:
    feasible = np.flatnonzero(violations <= 0)
    infeasible = np.flatnonzero(violations > 0)
    fronts = pareto_rank(values[feasible]) if len(feasible) else np.empty(0, dtype=np.int64)
    ordered = [_farthest_first(feasible[fronts == front], positions) for front in np.unique(fronts)]
    return np.concatenate([*ordered, infeasible[np.argsort(violations[infeasible], kind="stable")]]).astype(np.int64)


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
