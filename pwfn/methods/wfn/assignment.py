"""One round of WFN: a greedy choice of values for weights, the most frequent value first (WFN, algorithm 1)."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pwfn.codebook import float32_below
from pwfn.errors import DivergedWeightsError
from pwfn.methods.wfn.grid import DoubleArray, centres

LAST_ORDER = 20
"""After this order the allowed distance doubles instead; well before it a higher order changes no value any more."""

UNIT = 2.0**-31
"""Distances, all in [0, 1], are summed as integers in this unit, so that every device gets the same sums; int64 holds
those of 2^31 weights."""


class Group(NamedTuple):
    """Weights that are fixed to one value together."""

    value: float
    """The value, which float32 holds exactly."""
    places: Tensor
    """Indices of the weights, int64 `(group,)`."""


@torch.no_grad()
def assign(weights: Tensor, fixed: Tensor, *, need: int, allowed: float, zero_distance: float) -> list[Group]:
    """Choose values for `need` free weights, group by group; the mean distance in a group is at most the allowed one.

    The value that is nearest to most free weights comes first. Its weights are sorted by relative distance, and the
    group is the longest beginning of this list whose mean distance is within the allowed one. If not even the nearest
    weight is, the values of the next order are tried, and after the last order twice the allowed distance. The order
    stays for the rest of the round; the distance returns to `allowed` after each group.

    The free weights are sorted only once. The weights nearest to one value are then neighbours, so that each group
    costs one search for their borders and the work on these weights.

    Ties: a weight halfway between two values belongs to the smaller value. Among equally frequent values the smallest
    comes first. Among equally distant weights the smallest comes first, then the one with the lowest index.

    Args:
        weights: float32 `(num_weights,)`.
        fixed: bool `(num_weights,)`, the weights that already have a value and keep it.
        need: number of weights to fix, at most the number of free ones.
        allowed: the largest mean relative distance within a group; it also determines the spacing of the grid.
        zero_distance: weights with a smaller magnitude are at distance zero from the value zero.

    Returns:
        The groups in the order in which they were chosen.

    Raises:
        DivergedWeightsError: a free weight is NaN or infinite.
    """
    places = (~fixed).nonzero().squeeze(1)
    free, order_by_value = weights[places].sort(stable=True)
    places = places[order_by_value]
    _check_finite(free)
    groups: list[Group] = []
    order, stretch = 0, 1.0
    while need > 0:
        largest = float(max(-free[0], free[-1]))
        values = centres(order, spacing=allowed, zero_distance=zero_distance, largest=largest)
        value, cell = _most_frequent(free, values)
        taken = _nearest_within(free[cell], value, allowed * stretch, zero_distance)[:need]
        if len(taken) > 0:
            groups.append(Group(value, places[cell][taken]))
            free, places = _without(free, cell, taken), _without(places, cell, taken)
            need -= len(taken)
            stretch = 1.0
        elif order < LAST_ORDER:
            order += 1
        else:
            stretch *= 2
    return groups


def _check_finite(ascending: Tensor) -> None:
    ends = ascending[[0, -1]].tolist() if len(ascending) else []  # NaN is sorted to the end
    if any(not -inf < end < inf for end in ends):
        raise DivergedWeightsError(f"the weights must be finite, but go from {ends[0]:g} to {ends[1]:g}")


def _most_frequent(ascending: Tensor, values: DoubleArray) -> tuple[float, slice]:
    """Find the value that is nearest to most of the ascending weights `(num_free,)`, and the slice of these weights."""
    halfway = float32_below((values[1:] + values[:-1]) / 2)
    borders = torch.searchsorted(ascending, torch.from_numpy(halfway).to(ascending.device), right=True)
    ends = np.concatenate([[0], borders.cpu().numpy(), [len(ascending)]])
    best = int(np.diff(ends).argmax())
    return float(values[best]), slice(int(ends[best]), int(ends[best + 1]))


def _nearest_within(weights: Tensor, value: float, allowed: float, zero_distance: float) -> Tensor:
    """Return the indices of the most weights whose mean distance to `value` is within `allowed`, nearest first."""
    if value == 0:
        distance = (weights.abs() >= zero_distance).double()
    else:
        exact = weights.double()
        distance = (exact - value).abs_() / exact.abs()
    units, nearest = (distance / UNIT).round_().long().sort(stable=True)
    count = torch.arange(1, len(units) + 1, device=units.device)
    within = units.cumsum(0) <= round(min(allowed, 1.0) / UNIT) * count
    return nearest[: int(within.sum())]


def _without(tensor: Tensor, cell: slice, taken: Tensor) -> Tensor:
    """Return a tensor without some entries: those that `taken` lists by their indices within the slice `cell`."""
    left = torch.ones(cell.stop - cell.start, dtype=torch.bool, device=tensor.device)
    left[taken] = False
    return torch.cat([tensor[: cell.start], tensor[cell][left], tensor[cell.stop :]])
