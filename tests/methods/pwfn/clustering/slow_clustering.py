"""The clustering round written down as the paper states it: dense, slow, and the judge of the fast one.

Nothing here is shared with `pwfn.methods.pwfn.clustering`: candidates are sums of every choice of powers, distances a
(candidates, weights) float64 matrix, the nearest weights come from a stable sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from math import ceil, log2

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SlowRound:
    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    cluster_of_weight: npt.NDArray[np.int32]
    radius_end: float


def slow_candidates(order: int, largest: float, b: int) -> npt.NDArray[np.float64]:
    """All sums of `order` elements of {0, 2^-b, ..., 2^(ceil(log2 m) - 1)} up to m, and their negatives."""
    base = [0.0] + [2.0**e for e in range(-b, ceil(log2(largest)))] if largest > 0 else [0.0]
    sums = {sum(choice) for choice in combinations_with_replacement(base, order)}
    positive = [value for value in sums if 0 < value <= largest]
    return np.array(sorted([-value for value in positive] + [0.0] + positive))


def slow_cluster_round(
    mu: npt.NDArray[np.float32],
    sigma: npt.NDArray[np.float32],
    *,
    fraction: float,
    radius: float,
    radius_growth: float,
    b: int,
    zero_rule: bool = True,
    max_order: int = 4,
    fixed: npt.NDArray[np.bool_] | None = None,
    growth: str = "alternate",
) -> SlowRound:
    """One round; with a mask `fixed` those weights keep their value and count towards the target."""
    mean, scale = mu.astype(np.float64), np.maximum(sigma, np.float32(2.0**-20)).astype(np.float64)
    free = np.ones(len(mu), dtype=bool) if fixed is None else ~fixed
    cluster_of_weight = np.full(len(mu), -1, dtype=np.int32)
    values, counts = [], []
    need = ceil(len(mu) * fraction) - int((~free).sum())
    order, counter, widest = 1, 1, 8 * radius
    while need > 0:
        centres = slow_candidates(order, float(np.abs(mean[free]).max()), b)
        distance = np.abs(centres[:, None] - mean[None, :]) / scale[None, :]
        if zero_rule:
            distance[centres == 0] = np.where(np.abs(mean) < 2.0**-b, 0.0, distance[centres == 0])
        left = np.ones(len(centres), dtype=bool)
        while need > 0:
            reached = (distance <= radius) & free[None, :] & left[:, None]
            best = int(reached.sum(axis=1).argmax())
            if not reached[best].any():
                break
            members = np.flatnonzero(reached[best])
            taken = members[np.argsort(distance[best, members], kind="stable")[:need]]
            cluster_of_weight[taken] = len(values)
            values.append(centres[best])
            counts.append(len(taken))
            free[taken] = False
            left[best] = False
            need -= len(taken)
        if need > 0:
            known = np.unique(np.append(values, [] if fixed is None else mean[fixed]))
            if growth == "nearest" and order == max_order and len(known) > 0:
                go_to_nearest(mean, scale, free, known, need, cluster_of_weight, values, counts)
                break
            may_widen = {"alternate": counter % 2 == 0, "radius_first": radius * radius_growth <= widest}
            if order == max_order or may_widen.get(growth, False):
                radius *= radius_growth
            else:
                order += 1
            counter += 1
    return SlowRound(np.array(values, dtype=np.float64), np.array(counts, dtype=np.int64), cluster_of_weight, radius)


def go_to_nearest(
    mean: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
    free: npt.NDArray[np.bool_],
    known: npt.NDArray[np.float64],
    need: int,
    cluster_of_weight: npt.NDArray[np.int32],
    values: list[float],
    counts: list[int],
) -> None:
    """The nearest `need` free weights go to the value on their side of the midpoints; one cluster for each value."""
    place = np.zeros(len(mean), dtype=np.int64)
    for low, high in pairwise(known):
        place += mean > (low + high) / 2
    distance = np.where(free, np.abs(known[place] - mean) / scale, np.inf)
    taken = np.argsort(distance, kind="stable")[:need]
    for index in sorted(set(place[taken].tolist())):
        members = taken[place[taken] == index]
        cluster_of_weight[members] = len(values)
        values.append(known[index])
        counts.append(len(members))
