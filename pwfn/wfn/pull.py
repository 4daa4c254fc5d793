"""WFN's regulariser: how far a weight is from the values it may take, each counted by how near it is."""

from __future__ import annotations

from math import ceil, log

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float64]

CELLS_PER_TEMPERATURE = 4
"""Cells are at most a quarter of the temperature wide, in relative distance: a cubic is then off by about 1e-6."""

NUM_NODES = 4
NODES = (1 - np.cos((2 * np.arange(NUM_NODES) + 1) * np.pi / (2 * NUM_NODES))) / 2
"""Chebyshev's nodes of a cell [0, 1]; inside it, so that they never meet a kink at its ends."""

MOST_DISTANCES = 2**22
"""Distances held at once while a table is built."""


def expected_distance(weights: FloatArray, centres: FloatArray, temperature: float, zero_distance: float) -> FloatArray:
    """Distance of each weight `(n,)` to the centres `(k,)`, averaged by softmin(distance / temperature); `(n,)`.

    Distances are relative to the weight; those of weights up to `zero_distance` are absolute, and zero to a centre at
    zero (WFN, section 3.3). Holds an n x k matrix.
    """
    near_zero = (np.abs(weights) <= zero_distance)[:, None]
    distance = np.abs(weights[:, None] - centres) / np.where(near_zero, 1.0, np.abs(weights)[:, None])
    distance[near_zero & (centres == 0)] = 0
    share = np.exp((distance.min(axis=1, keepdims=True) - distance) / temperature)
    mean: FloatArray = (share * distance).sum(axis=1) / share.sum(axis=1)
    return mean


class Pull:
    """The expected distance to a codebook and its slope, for any number of weights at a cost that K does not change.

    Both depend on one weight alone, so they are tabulated: piecewise cubics between the points where the expected
    distance has a kink (the centres) or jumps (the zero distance). Summing over the nearest few centres instead would
    not do: in a dense codebook several dozen share a weight at temperature 0.05, and beyond the largest centre all do.

    Args:
        centres: the codebook, `(k,)`, not empty.
        temperature: of the softmin, in relative distance.
        zero_distance: weights up to this have absolute distances.
        largest: magnitude up to which the table is made; beyond it weights feel what is felt there.
        device: of the weights to come.
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
        edges = _edges(exact, temperature, zero_distance, largest)
        rows = np.concatenate([_cubics(edges, side, temperature, zero_distance) for side in (exact, -exact)])
        self.inner_edges = torch.from_numpy(edges[1:-1]).float().to(device)
        self.num_cells = len(edges) - 1
        # start of the cell, 1 / width, and the cubic's coefficients; the negative weights' rows follow the others'
        self.rows = torch.from_numpy(rows).float().to(device)

    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected distance of float32 weights `(n,)` and its derivative, both `(n,)`."""
        magnitude = weights.abs()
        cell = torch.searchsorted(self.inner_edges, magnitude)  # the zero distance itself belongs to the cell below
        start, per_width, c0, c1, c2, c3 = self.rows[cell + self.num_cells * (weights < 0)].unbind(1)
        t = ((magnitude - start) * per_width).clamp_(max=1)
        distance = c0 + t * (c1 + t * (c2 + t * c3))
        slope = (c1 + t * (2 * c2 + t * 3 * c3)) * per_width
        return distance, torch.where(weights < 0, -slope, slope)


def _edges(centres: FloatArray, temperature: float, zero_distance: float, largest: float) -> FloatArray:
    """Borders of the cells on the side of positive weights, from 0 up."""
    width = temperature / CELLS_PER_TEMPERATURE
    end = 2 * max(largest, zero_distance)
    below = np.linspace(0, zero_distance, ceil(zero_distance / width) + 1)
    above = np.geomspace(zero_distance, end, ceil(log(end / zero_distance) / width) + 1)
    kinks = np.abs(centres)
    edges = np.concatenate([below, above, kinks[kinks < end]])
    # Cells are found in float32, so their borders are distinct there.
    return np.unique(edges.astype(np.float32)).astype(np.float64)


def _cubics(edges: FloatArray, centres: FloatArray, temperature: float, zero_distance: float) -> FloatArray:
    """Start, 1 / width and coefficients of each cell, `(num_cells, 6)`."""
    start, width = edges[:-1], np.diff(edges)
    points = (start[:, None] + width[:, None] * NODES).reshape(-1)
    num_chunks = ceil(len(points) * len(centres) / MOST_DISTANCES)
    chunks = np.array_split(points, max(num_chunks, 1))
    sampled = np.concatenate([expected_distance(chunk, centres, temperature, zero_distance) for chunk in chunks])
    coefficients = sampled.reshape(-1, NUM_NODES) @ np.linalg.inv(np.vander(NODES, increasing=True)).T
    return np.column_stack([start, 1 / width, coefficients])
