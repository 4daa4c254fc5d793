"""The number of edges below each weight, computed on a CPU without branches, which it would often mispredict.

The ranks are those of torch's bucketize. Bucketize searches for each weight by itself and takes 8 to 10 times as long
(5.4 million normally distributed weights, 4 to 64 values).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

PIECE = 2**17
"""Number of weights that are treated at once; what they need then fits into a core's cache."""
FEW_EDGES = 16
"""Up to this number of edges every weight is compared with every edge; with more edges a table is faster."""
CELLS = 4096
"""Number of rows of the table: one for each cell, a small interval of weights."""

Rank = Callable[[Tensor], Tensor]
"""Maps weights `(n,)` to their ranks, `(n,)`."""


def ranks_(places: Tensor, weights: Tensor, edges: Tensor) -> None:
    """Write to `places` `(n,)` the number of edges below each of the `weights` `(n,)`.

    `edges` are ascending and may be infinite.
    """
    rank = _by_comparison(edges) if len(edges) <= FEW_EDGES else _by_table(edges)
    for place, weight in zip(torch.split(places, PIECE), torch.split(weights, PIECE), strict=True):
        place.copy_(rank(weight))


def _by_comparison(edges: Tensor) -> Rank:
    """Compare every weight with every edge. NumPy compares several times as fast as torch here."""

    def rank(weights: Tensor) -> Tensor:
        sums, is_above = np.zeros(len(weights), dtype=np.uint8), np.empty(len(weights), dtype=np.bool_)
        for edge in edges.numpy():
            np.greater(weights.numpy(), edge, out=is_above)
            np.add(sums, is_above.view(np.uint8), out=sums)
        return torch.from_numpy(sums)

    return rank


def _by_table(edges: Tensor) -> Rank:
    """Look up the number of edges below the cell of each weight, then compare the weight with the edges in the cell.

    Cells of equal width divide the range of the edges; few of them contain an edge. Rounding may put a weight into the
    cell beside its own, so an entry of the table covers the cells on both sides too.
    """
    finite = edges[edges.isfinite()]
    low, high = (float(finite[0]), float(finite[-1])) if len(finite) else (0.0, 0.0)
    per_unit = min((CELLS - 4) / (high - low), 1e30) if high > low else 1.0
    begins = low + (torch.arange(CELLS, dtype=torch.float64) - 2) / per_unit
    below = torch.bucketize(begins - 1 / per_unit, edges.double(), out_int32=True)
    above = torch.bucketize(begins + 2 / per_unit, edges.double(), out_int32=True)
    below[0] = (edges == -torch.inf).sum()
    above[-1] = below[0] + len(finite)
    most = int((above - below).max())
    padded = torch.cat([edges, edges.new_tensor([torch.inf])])

    def rank(weights: Tensor) -> Tensor:
        cell = ((weights - low) * per_unit + 2).clamp_(0, CELLS - 1).nan_to_num_().int()
        place = below.index_select(0, cell)
        for _ in range(most):
            place += weights > padded.index_select(0, place)
        return place

    return rank
