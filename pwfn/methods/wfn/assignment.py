"""One round of WFN: a greedy choice of values for weights, the most frequent value first (WFN, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
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


MOST_AT_ONCE = 2**24
"""Cells are looked at together until they have about so many weights, which bounds the memory."""


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

    A group changes no other value's weights, as long as the grid stays, which ends at the largest free weight. So the
    groups of many values are found in one look at the weights, which a GPU is asked for once: the host chooses among
    them, one after the other, by numbers alone. How often it waits for the GPU depends on the number of orders, and not
    on that of groups. The few weights that no order reaches are looked at on the host, value by value.

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
    largest = _largest(free)
    groups: list[Group] = []
    order, stretch, is_rest = 0, 1.0, False
    while need > 0:
        values = centres(order, spacing=allowed, zero_distance=zero_distance, largest=largest)
        most = 1 if is_rest else min(need, MOST_AT_ONCE)
        cells = _look(free, values, most=most, allowed=allowed * stretch, zero_distance=zero_distance)
        gone: list[Tensor] = []
        while need > 0:
            best = int(cells.left.argmax())
            taken = min(int(cells.within[best]), need)
            if taken <= 0:
                break
            gone.append(cells.nearest[cells.start[best] :][:taken])
            groups.append(Group(float(values[best]), places[gone[-1]]))
            need -= taken
            # What is left of it is farther away than allowed.
            cells.left[best] -= taken
            cells.within[best] = 0
            cells.largest[best] = cells.largest_beyond[best]
            largest = float(cells.largest.max())
            grid = centres(order, spacing=allowed, zero_distance=zero_distance, largest=largest)
            if stretch > 1 or not np.array_equal(grid, values):
                stretch = 1.0
                break
        else:
            break
        if gone:
            left = torch.ones(len(free), dtype=torch.bool, device=free.device)
            left[torch.cat(gone)] = False
            remaining = left.nonzero().squeeze(1)
            free, places = free[remaining], places[remaining]
        if taken == 0 and order < LAST_ORDER:
            order += 1
        elif taken == 0:
            stretch *= 2
            is_rest, free, places = True, free.cpu(), places.cpu()
    return [Group(value, of.to(weights.device, non_blocking=True)) for value, of in groups]


def _largest(ascending: Tensor) -> float:
    """The largest magnitude among ascending weights; 0 if there are none."""
    ends = ascending[[0, -1]].tolist() if len(ascending) else [0.0, 0.0]  # NaN is sorted to the end
    if any(not -inf < end < inf for end in ends):
        raise DivergedWeightsError(f"the weights must be finite, but go from {ends[0]:g} to {ends[1]:g}")
    return max(-ends[0], ends[1])


@dataclass(frozen=True)
class _Cells:
    """The free weights nearest to each of `k` values, and which of them would be a group; arrays are `(k,)`."""

    left: npt.NDArray[np.int64]
    """Number of weights."""
    within: npt.NDArray[np.int64]
    """Size of the group; -1 where nobody has looked."""
    largest: DoubleArray
    """Largest magnitude of the weights."""
    largest_beyond: DoubleArray
    """The same without the group."""
    start: npt.NDArray[np.int64]
    """Where the weights begin in `nearest`."""
    nearest: Tensor
    """Indices of the weights that were looked at: value by value, and for each value the nearest weight first."""


def _look(ascending: Tensor, values: DoubleArray, *, most: int, allowed: float, zero_distance: float) -> _Cells:
    """Find the groups of the most frequent values, of as many as have `most` weights together.

    Args:
        ascending: the free weights, `(num_free,)`.
        values: float64 `(k,)`, ascending.
        most: at least 1.
        allowed: the largest mean distance in a group.
        zero_distance: see `assign`.
    """
    there = partial(_to, device=ascending.device)
    halfway = there(float32_below((values[1:] + values[:-1]) / 2))
    ends = np.concatenate([[0], torch.searchsorted(ascending, halfway, right=True).cpu().numpy(), [len(ascending)]])
    counts = np.diff(ends)
    frequent = np.sort(counts)[::-1]
    is_seen = counts >= max(1, frequent[min(int(np.searchsorted(frequent.cumsum(), most)), len(frequent) - 1)])
    sizes = np.where(is_seen, counts, 0)
    start = sizes.cumsum() - sizes

    cell = torch.searchsorted(halfway, ascending)
    index = there(is_seen)[cell].nonzero().squeeze(1)
    cell, exact = cell[index], ascending[index].double()
    value = there(values)[cell]
    distance = torch.where(value == 0, (exact.abs() >= zero_distance).double(), (exact - value).abs_() / exact.abs())
    by_cell = cell.bitwise_left_shift(32).add_((distance / UNIT).round_().long())
    by_cell, order = by_cell.sort(stable=True)
    cell, units = cell[order], by_cell.bitwise_and_(2**32 - 1)
    total, start_of_each = _before(units), there(start)[cell]
    count = torch.arange(1, len(units) + 1, device=units.device) - start_of_each
    is_within = total[1:] - total[start_of_each] <= round(min(allowed, 1.0) / UNIT) * count

    num_within = _before(is_within)
    within = num_within[there(start + sizes)] - num_within[there(start)]
    beyond = exact[order].abs_().masked_fill_(is_within, 0)
    largest_beyond = beyond.new_zeros(len(values)).scatter_reduce_(0, cell, beyond, "amax")
    outer = ascending[there(np.stack([ends[:-1], ends[1:] - 1]).clip(0, len(ascending) - 1))].abs().amax(0)
    found = torch.stack([within, largest_beyond, outer.double()]).cpu().numpy()
    return _Cells(
        left=counts,
        within=np.where(is_seen, found[0].astype(np.int64), -1),
        largest=np.where(counts > 0, found[2], 0),
        largest_beyond=found[1],
        start=start,
        nearest=index[order],
    )


def _to(array: npt.NDArray[Any], *, device: torch.device) -> Tensor:
    """A small array as a tensor on the device, for which the host does not wait."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def _before(numbers: Tensor) -> Tensor:
    """Sums of the first 0, 1, ... of some whole numbers `(n,)`, int64 `(n + 1,)`."""
    return torch.nn.functional.pad(numbers.cumsum(0), (1, 0))
