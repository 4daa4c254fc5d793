"""Which of many points are best when several objectives count: an order, best first."""

from __future__ import annotations

import numpy as np
from moocore import pareto_rank
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rank(values: Floats, violations: Floats | None = None) -> NDArray[np.int64]:
    """Place points by non-dominated sorting, within a front so that every beginning of it is spread out.

    Within a front the points come farthest first (Schmucker et al. 2021, section 3, epsilon-net): the best in the first
    objective, then always the one farthest from those before it. Distances are between ranks in each objective, so
    that no objective's scale matters. Points that violate a constraint come last, the least violation first.

    Args:
        values: `(points, objectives)`, all to be minimised.
        violations: `(points,)`, 0 where every constraint holds; None where there are none.

    Returns:
        `(points,)`: the place of each point, 0 for the best. Equal points are placed in the order given.
    """
    places = np.empty(len(values), dtype=np.int64)
    places[_order(values, np.zeros(len(values)) if violations is None else violations)] = np.arange(len(values))
    return places


def _order(values: Floats, violations: Floats) -> NDArray[np.int64]:
    feasible = np.flatnonzero(violations <= 0)
    infeasible = np.flatnonzero(violations > 0)
    fronts = pareto_rank(values[feasible]) if len(feasible) else np.empty(0, dtype=np.int64)
    positions = _ranks(values)
    ordered = [_farthest_first(feasible[fronts == front], positions) for front in np.unique(fronts)]
    return np.concatenate([*ordered, infeasible[np.argsort(violations[infeasible], kind="stable")]]).astype(np.int64)


def _ranks(values: Floats) -> Floats:
    """Replace each objective by the place of its value among the distinct ones, as a share."""
    places = [np.unique(column, return_inverse=True)[1] for column in values.T]
    return np.stack([column / max(column.max(initial=0), 1) for column in places], axis=1)


def _farthest_first(members: NDArray[np.int64], positions: Floats) -> NDArray[np.int64]:
    points = positions[members]
    chosen = [int(points[:, 0].argmin())]
    distance = np.full(len(members), np.inf)
    for _ in range(len(members) - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return members[chosen]
