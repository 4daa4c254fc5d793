"""One round of WFN: which weights become which value, greedily, the largest group first (WFN, algorithm 1)."""

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
"""Rounding changes nothing any more well before this order; from there on the allowed distance doubles instead."""

UNIT = 2.0**-31
"""Distances, all in [0, 1], are summed as integers in this unit: the same on every device, up to 2^31 weights."""


class Group(NamedTuple):
    """Weights that are fixed together."""

    value: float
    """Exact in float32."""
    places: Tensor
    """Their indices, int64 `(group,)`."""


@torch.no_grad()
def assign(weights: Tensor, fixed: Tensor, *, need: int, allowed: float, zero_distance: float) -> list[Group]:
    """Choose values for `need` of the free weights so that each group moves no further than allowed on average.

    The value that is nearest to most free weights comes first; of those weights it takes the longest prefix, by
    relative distance, whose mean is within the allowed distance. Where it takes none, the values of the next order
    are tried, and after the last order twice the distance. The order stays for the rest of the round, the distance
    returns to `allowed` after each group.

    Only the free weights are sorted, once; each value's weights then lie side by side, so that a step costs a search
    for the borders and the work on one value's weights.

    Ties: a weight halfway between two values belongs to the smaller one; of equally frequent values the smallest is
    taken; of equally distant weights the smaller, then the one of the lower index.

    Args:
        weights: float32 `(num_weights,)`.
        fixed: bool `(num_weights,)`, the weights that have their value already and keep it.
        need: how many to fix, at most the number of free ones.
        allowed: a, mean relative distance within a group; it also spaces the grid.
        zero_distance: smaller weights are at distance zero from the value zero.

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
    """Find the value that is nearest to most of the weights `(free,)`, and where these lie."""
    halfway = float32_below((values[1:] + values[:-1]) / 2)
    borders = torch.searchsorted(ascending, torch.from_numpy(halfway).to(ascending.device), right=True)
    ends = np.concatenate([[0], borders.cpu().numpy(), [len(ascending)]])
    best = int(np.diff(ends).argmax())
    return float(values[best]), slice(int(ends[best]), int(ends[best + 1]))


def _nearest_within(weights: Tensor, value: float, allowed: float, zero_distance: float) -> Tensor:
    """Return the positions, nearest first, of the longest prefix of weights whose mean distance is within `allowed`."""
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
    """Drop some positions of a cell."""
    left = torch.ones(cell.stop - cell.start, dtype=torch.bool, device=tensor.device)
    left[taken] = False
    return torch.cat([tensor[: cell.start], tensor[cell][left], tensor[cell.stop :]])
