"""Optimal k-means in one dimension: dynamic programming finds the best places to cut a sorted sequence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def optimal_cuts(mass: DoubleArray, moment: DoubleArray, num_clusters: int) -> IntArray:
    """Cut a sorted sequence of groups into the clusters with the least weighted sum of squared errors.

    In one dimension the clusters of an optimal k-means are contiguous. Their cost is a constant minus their gain, which
    is (sum w x)^2 / sum w, summed over clusters. For each number of clusters k and each `end`, the dynamic program
    holds the largest gain of k clusters of the first `end` groups, and the place of their last cut. This place never
    moves left as `end` grows. So the cuts for every second `end` limit the search for those between, and the time is
    O(num_clusters n log n) (Groenlund et al. 2017, arXiv 1701.07204, section 2).

    Args:
        mass: sum of the weights w of the points in each group, positive, float64 `(n,)`.
        moment: sum of w x of the points x in each group, float64 `(n,)`; moment / mass must increase.
        num_clusters: at least 1 and at most n.

    Returns:
        Index of the first group of each cluster, int64 `(num_clusters,)`, the first 0; the leftmost of equally good
        cuts.
    """
    total_mass = np.concatenate([[0.0], mass.cumsum()])
    # With x measured from the mean, the gain has no large part that would cancel in differences.
    centred = moment - mass * (moment.sum() / total_mass[-1])
    total_moment = np.concatenate([[0.0], centred.cumsum()])
    num_groups = len(mass)
    gain = np.concatenate([[0.0], total_moment[1:] ** 2 / total_mass[1:]])
    cut_before = np.zeros((num_clusters, num_groups + 1), dtype=np.int32)
    for row in range(1, num_clusters):
        gain, cut_before[row] = _add_cluster(gain, cut_before[row - 1], total_mass, total_moment, row)
    starts = np.zeros(num_clusters, dtype=np.int64)
    end = num_groups
    for row in range(num_clusters - 1, 0, -1):
        end = starts[row] = cut_before[row, end]
    return starts


def _add_cluster(
    gain: DoubleArray, cut_before: npt.NDArray[np.int32], mass: DoubleArray, moment: DoubleArray, row: int
) -> tuple[DoubleArray, npt.NDArray[np.int32]]:
    """Compute from the gains of `row` clusters those of `row` + 1 clusters, and where the last cluster begins.

    All arrays are `(n + 1,)`, one entry for each end. For an end with fewer groups than clusters the gain stays 0; no
    optimal solution uses it.
    """
    num_groups = len(gain) - 1
    more, cut = np.zeros_like(gain), np.full(num_groups + 1, row, dtype=np.int32)
    stride = 1 << num_groups.bit_length()
    while stride:
        ends = np.arange(stride, num_groups + 1, 2 * stride)
        ends = ends[ends > row]
        # With one cluster more, the last cut does not move left either.
        low = np.maximum(cut[ends - stride], cut_before[ends])
        low = np.maximum(low, row)
        above = ends + stride
        high = np.where(above <= num_groups, cut[np.minimum(above, num_groups)], num_groups)
        high = np.minimum(high, ends - 1)
        more[ends], cut[ends] = _best_cuts(gain, mass, moment, ends, low, high)
        stride //= 2
    return more, cut


def _best_cuts(
    gain: DoubleArray, mass: DoubleArray, moment: DoubleArray, ends: IntArray, low: IntArray, high: IntArray
) -> tuple[DoubleArray, IntArray]:
    """Find for each end the best last cut from `low` to `high`, the leftmost of equally good ones.

    Returns the gains and the cuts. All ends are treated in one pass over their concatenated ranges.
    """
    if len(ends) == 0:
        return gain[:0], ends
    counts = high - low + 1
    first = np.concatenate([[0], counts.cumsum()[:-1]])
    cut = np.arange(counts.sum()) + np.repeat(low - first, counts)
    inner = np.repeat(moment[ends], counts)
    inner -= moment[cut]
    inner *= inner
    inner /= np.repeat(mass[ends], counts) - mass[cut]
    inner += gain[cut]
    best = np.maximum.reduceat(inner, first)
    where_best = np.flatnonzero(inner == np.repeat(best, counts))
    return best, cut[where_best[np.searchsorted(where_best, first)]]
