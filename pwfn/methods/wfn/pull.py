"""WFN's regulariser: the mean distance of a weight to the values it may take, in which near values count for most."""

from __future__ import annotations

from math import ceil, log2
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pwfn.fused import fused

DoubleArray = npt.NDArray[np.float64]

CELLS_PER_TEMPERATURE = 6
"""A cell of the table is narrower than a sixth of the temperature, in relative distance. A cubic is then close to the
expected distance in the cell, and its slope to the derivative."""

NUM_NODES = 4
NODES = (1 - np.cos((2 * np.arange(NUM_NODES) + 1) * np.pi / (2 * NUM_NODES))) / 2
"""Chebyshev's nodes of the cell [0, 1]. None is at an end of the cell, where the function may have a kink."""

SIGNIFICAND_BITS = 23
FEWEST_LEADING_BITS = 5
"""There are at least 2^5 cells between a power of two and the next, because the relative distance is curved even where
the softmin is flat."""

MOST_DISTANCES = 2**22
"""Most distances in memory at once while a table is built."""


def expected_distance(
    weights: DoubleArray, centres: DoubleArray, temperature: float, zero_distance: float
) -> DoubleArray:
    """Mean distance of each weight `(n,)` to the centres `(k,)`, weighted by softmin(distance / temperature); `(n,)`.

    Distances are relative to the magnitude of the weight. For weights with a magnitude up to `zero_distance` they are
    absolute, and the distance to a centre at zero is zero (WFN, section 3.3). Needs an n x k matrix.
    """
    near_zero = (np.abs(weights) <= zero_distance)[:, None]
    distance = np.abs(weights[:, None] - centres) / np.where(near_zero, 1.0, np.abs(weights)[:, None])
    distance[near_zero & (centres == 0)] = 0
    share = np.exp((distance.min(axis=1, keepdims=True) - distance) / temperature)
    mean: DoubleArray = (share * distance).sum(axis=1) / share.sum(axis=1)
    return mean


class Table(NamedTuple):
    """The cells of a pull, which `looked_up` reads; numbers and tensors alone, so that it can be a part of a kernel."""

    shift: int
    """Number of the last bits of a float32 number that do not tell its bin."""
    lowest_bin: int
    """Number of the first bin."""
    most_kinks: int
    """Largest number of kinks inside a bin."""
    first_cell: Tensor
    """First cell of each bin, int32."""
    upper_edge: Tensor
    """Upper end of each cell."""
    start: Tensor
    """Lower end of each cell."""
    per_width: Tensor
    """One over the width of each cell."""
    coefficients: Tensor
    """Of the cubics, the constant first, `(4, 2 cells)`: those for positive weights, then those for negative ones."""


class Pull:
    """A table of the expected distance to a codebook and of its slope, as fast for many values as for few.

    Both depend on one weight alone. The table holds a cubic polynomial for each cell. Cells end where the expected
    distance has a kink (at the centres) or jumps (at the zero distance). A sum over the nearest few centres would not
    be exact enough: at temperature 0.05 several dozen centres of a dense codebook matter to a weight, and beyond the
    largest centre all of them do.

    The cell of a weight is found without a search. The leading bits of a float32 number are the number of a bin, with
    2^k bins between a power of two and the next. Every border of a bin is a border of a cell, so that a weight is
    compared only with the few kinks inside its bin.

    Args:
        centres: the codebook, `(k,)`, not empty.
        temperature: of the softmin, in relative distance.
        zero_distance: weights with a magnitude up to this have absolute distances.
        largest: the table ends at twice this magnitude or beyond; larger weights get the numbers at its end.
        device: of the weights that it is called with.
    """

    def __init__(
        self,
        centres: npt.NDArray[np.floating],
        *,
        temperature: float,
        zero_distance: float,
        largest: float,
        device: torch.device | None = None,
    ) -> None:
        exact = centres.astype(np.float64)
        width = temperature / CELLS_PER_TEMPERATURE
        shift = SIGNIFICAND_BITS - max(FEWEST_LEADING_BITS, ceil(-log2(width)))
        borders = _borders(shift, min(width, zero_distance), 2 * max(largest, zero_distance))
        kinks = np.append(np.abs(exact), zero_distance).astype(np.float32)
        edges = np.unique(np.concatenate([np.zeros(1, np.float32), borders, kinks[kinks < borders[-1]]]))
        # The first cell of each bin; the weights below the first border are a bin, too.
        first_cell = np.searchsorted(edges, np.append(0, borders))
        # The coefficients for negative weights follow those for positive ones.
        cubics = [_cubics(edges, side, temperature, zero_distance) for side in (exact, -exact)]
        self.table = Table(
            shift=shift,
            lowest_bin=int(borders[:1].view(np.int32)[0] >> shift) - 1,
            most_kinks=int(np.diff(first_cell).max()) - 1,
            first_cell=torch.from_numpy(first_cell[:-1].astype(np.int32)).to(device),
            upper_edge=torch.from_numpy(edges[1:]).to(device),
            start=torch.from_numpy(edges[:-1]).to(device),
            per_width=(1 / torch.from_numpy(np.diff(edges.astype(np.float64)))).float().to(device),
            coefficients=torch.from_numpy(np.concatenate(cubics).T.astype(np.float32)).contiguous().to(device),
        )

    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected distance of float32 weights `(n,)` and its derivative, both `(n,)`."""
        return looked_up(weights, self.table)


def looked_up(weights: Tensor, table: Table) -> tuple[Tensor, Tensor]:
    """Look up the expected distance of float32 weights `(n,)` and its derivative, both `(n,)`."""
    magnitude = weights.abs()
    cell = _cells(magnitude, table)
    per_width = table.per_width.index_select(0, cell)
    t = ((magnitude - table.start.index_select(0, cell)) * per_width).clamp_(max=1)
    row = cell + len(table.upper_edge) * (weights < 0)
    c0, c1, c2, c3 = (column.index_select(0, row) for column in table.coefficients)
    distance = c0 + t * (c1 + t * (c2 + t * c3))
    slope = (c1 + t * (2 * c2 + t * 3 * c3)) * per_width
    return distance, torch.where(weights < 0, -slope, slope)


def _cells(magnitude: Tensor, table: Table) -> Tensor:
    """Find the cell of each magnitude `(n,)`, int32; a border belongs to the cell below it."""
    below = magnitude.view(torch.int32) - 1  # the next smaller float32, so that a border belongs to the bin below
    bins = ((below >> table.shift) - table.lowest_bin).clamp_(0, len(table.first_cell) - 1)
    cell = table.first_cell.index_select(0, bins)
    for _ in range(table.most_kinks):
        cell += magnitude > table.upper_edge.index_select(0, cell)
    return cell.clamp_(max=len(table.upper_edge) - 1)


@fused
def pull_(slope: Tensor, weights: Tensor, free: Tensor, table: Table) -> Tensor:
    """Write the slope of the expected distance of the free weights; return the sum of their distances, a scalar.

    Args:
        slope: `(n,)`, overwritten; 0 for weights that are not free.
        weights: `(n,)`.
        free: bool `(n,)`.
        table: of the pull.
    """
    distance, found = looked_up(weights, table)
    slope.copy_(torch.where(free, found, 0))
    return torch.where(free, distance, 0).sum()


@fused
def add_pull_(gradient: Tensor, slope: Tensor, strength: Tensor) -> None:
    """Add the slope `(n,)`, times a scalar, to the gradient of the weights `(n,)`, in place."""
    gradient.addcmul_(slope, strength)


def _borders(shift: int, lowest: float, highest: float) -> npt.NDArray[np.float32]:
    """All float32 numbers whose last `shift` bits are zero, from at most `lowest` to at least `highest`."""
    first, last = np.array([lowest, highest], dtype=np.float32).view(np.int32) >> shift
    return (np.arange(first, last + 2, dtype=np.int32) << shift).view(np.float32)


def _cubics(
    edges: npt.NDArray[np.float32], centres: DoubleArray, temperature: float, zero_distance: float
) -> DoubleArray:
    """Coefficients of the cubic on each cell, with its ends at 0 and 1, `(num_cells, 4)`, the constant first."""
    exact = edges.astype(np.float64)
    points = (exact[:-1, None] + np.diff(exact)[:, None] * NODES).reshape(-1)
    num_chunks = ceil(len(points) * len(centres) / MOST_DISTANCES)
    chunks = np.array_split(points, num_chunks)
    sampled = np.concatenate([expected_distance(chunk, centres, temperature, zero_distance) for chunk in chunks])
    coefficients: DoubleArray = sampled.reshape(-1, NUM_NODES) @ np.linalg.inv(np.vander(NODES, increasing=True)).T
    return coefficients
