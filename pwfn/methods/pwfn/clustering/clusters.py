"""Numbers that belong to clusters: tables to look them up for each weight, and exact sums over each cluster's weights.

In all functions `cluster` is int32 `(num_weights,)`: the number of the cluster that fixes each weight in this round, or
FREE or KEPT. Weights that are FREE or KEPT enter no sum, and no function writes to them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks

DoubleArray = npt.NDArray[np.float64]
Term = Callable[[slice], Tensor]

FREE = -1
"""Stands in the place of a cluster's number: the weight is not fixed."""
KEPT = -2
"""Stands in the place of a cluster's number: the weight was fixed in an earlier round and keeps its value."""
NUM_MARKS = 2
"""Number of rows before those of the clusters in every table: row 0 is for KEPT, row 1 for FREE."""

FIXED_POINT_BITS = 31
"""Terms are rounded to integers in a unit of about 2^-31 of the largest term of their cluster: a sum of integers is the
same in any order."""
LOW_HALF = 2**FIXED_POINT_BITS - 1
"""Mask of the lower 31 bits of a square."""


def cluster_table(of_cluster: DoubleArray, device: torch.device) -> Tensor:
    """Make the table for `look_up` from one real number per cluster, `(num_clusters,)`; weights without one get 0."""
    return torch.from_numpy(np.concatenate([np.zeros(NUM_MARKS), of_cluster])).to(device)


def look_up(table: Tensor, cluster: Tensor) -> Tensor:
    """Return for each weight the entry of `table` for its cluster, `(num_weights,)`."""
    return table.index_select(0, cluster + NUM_MARKS)


def write_(target: Tensor, cluster: Tensor, of_cluster: DoubleArray) -> None:
    """Write to `target` `(num_weights,)` the entry of `of_cluster` for each weight that has a cluster, as float32."""
    table = cluster_table(of_cluster, target.device).float()
    for chunk in chunks(len(target), target.device):
        target[chunk] = torch.where(cluster[chunk] >= 0, look_up(table, cluster[chunk]), target[chunk])


def means(term: Term, cluster: Tensor, counts: IntArray) -> DoubleArray:
    """Mean of float64 `term(chunk)` over the weights of each cluster, `(num_clusters,)`.

    `counts` `(num_clusters,)` are the numbers of weights. The error is at most 2^-31 of the cluster's largest term.
    """
    total, _, unit = _sums(term, cluster, len(counts))
    result: DoubleArray = np.array(total, dtype=np.float64) / counts * unit
    return result


def standard_deviations(term: Term, cluster: Tensor, counts: IntArray) -> DoubleArray:
    """Population standard deviation of float64 `term(chunk)` over the weights of each cluster, `(num_clusters,)`.

    `counts` `(num_clusters,)` are the numbers of weights. The error is at most 2^-31 of the cluster's largest term:
    rounding changes the deviation by no more than it changes a term.
    """
    total, squares, unit = _sums(term, cluster, len(counts))
    spread = [n * square - first**2 for n, first, square in zip(counts.tolist(), total, squares, strict=True)]
    deviations: DoubleArray = np.sqrt(np.array(spread, dtype=np.float64)) / counts * unit
    return deviations


def root_mean_squares(term: Term, cluster: Tensor, counts: IntArray) -> DoubleArray:
    """Root mean square of float64 `term(chunk)` over the weights of each cluster, `(num_clusters,)`.

    `counts` `(num_clusters,)` are the numbers of weights. The error is at most 2^-31 of the cluster's largest term.
    """
    _, squares, unit = _sums(term, cluster, len(counts))
    means: DoubleArray = np.sqrt(np.array(squares, dtype=np.float64) / counts) * unit
    return means


def _sums(term: Term, cluster: Tensor, num_clusters: int) -> tuple[list[int], list[int], DoubleArray]:
    """Sums and sums of squares over each cluster's weights, as exact integers, and the unit of each cluster's terms.

    The unit is a power of two, and the unit of the squares is its square. A square is at most 2^62: its lower 31 bits
    and the bits above them are summed apart, so that int64 holds the sums of 2^31 weights.
    """
    unit = _units(term, cluster, num_clusters)
    per_unit = torch.from_numpy(1 / unit).to(cluster.device)
    sums = torch.zeros(3, len(unit), dtype=torch.int64, device=cluster.device)
    for chunk in chunks(len(cluster), cluster.device):
        row = _row(cluster[chunk])
        whole = term(chunk).mul_(per_unit.index_select(0, row)).round_().long()
        square = whole * whole
        for total, part in zip(sums, (whole, square >> FIXED_POINT_BITS, square & LOW_HALF), strict=True):
            total.scatter_add_(0, row, part)
    first, high, low = sums[:, NUM_MARKS:].tolist()
    squares = [(upper << FIXED_POINT_BITS) + lower for upper, lower in zip(high, low, strict=True)]
    return first, squares, unit[NUM_MARKS:]


def _units(term: Term, cluster: Tensor, num_clusters: int) -> DoubleArray:
    """Unit of the terms for each row of a table: 2^-31 of the smallest power of two above the row's largest |term|."""
    largest = torch.zeros(NUM_MARKS + num_clusters, dtype=torch.float64, device=cluster.device)
    for chunk in chunks(len(cluster), cluster.device):
        largest.scatter_reduce_(0, _row(cluster[chunk]), term(chunk).abs_(), "amax")
    _, exponent = np.frexp(largest.cpu().numpy())
    unit: DoubleArray = np.ldexp(1.0, exponent - FIXED_POINT_BITS)
    return unit


def _row(cluster: Tensor) -> Tensor:
    return (cluster + NUM_MARKS).long()
