"""Weights that go to the nearest of given values: the end of a round with `growth="nearest"`, and `nearest_round`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.clusters import FREE, DoubleArray
from pwfn.methods.pwfn.clustering.cut import largest
from pwfn.methods.pwfn.clustering.intervals import Weights


def fix_to_nearest_(
    cluster_of_weight: Tensor, free: Weights, values: DoubleArray, *, num: int, first_cluster: int
) -> tuple[DoubleArray, IntArray]:
    """Fix the `num` free weights that are nearest to one of `values`, in sigmas; among equally near ones the first.

    Args:
        cluster_of_weight: int32 over all weights; the entries of the weights that are fixed here are overwritten.
        free: the free weights.
        values: float64 `(num_values,)`, ascending, at least one. A weight halfway between two goes to the smaller.
        num: number of weights to fix, from 1 to all free weights.
        first_cluster: number of the first new cluster.

    Returns:
        The value and the number of weights of each new cluster, ascending by value: float64 and int64
        `(num_clusters,)`. Each value that some weight goes to makes one cluster.
    """
    place, distance = _nearest(free, values)
    if num < len(free):
        place[largest(distance, len(free) - num)] = len(values)  # these stay free
    count = torch.bincount(place, minlength=len(values) + 1).cpu().numpy()[:-1]
    taking = np.flatnonzero(count)
    cluster_of_place = np.full(len(values) + 1, FREE, dtype=np.int32)
    cluster_of_place[taking] = first_cluster + np.arange(len(taking))
    table = torch.from_numpy(cluster_of_place).to(place.device)
    for chunk in free.chunks():
        free.write_(cluster_of_weight, chunk, table.index_select(0, place[chunk]))
    return values[taking], count[taking]


def _nearest(weights: Weights, values: DoubleArray) -> tuple[Tensor, Tensor]:
    """For each weight the index of the nearest value, int32, and the distance |c - mu| / s to it, float64."""
    device = weights.all_mu.device
    place = torch.empty(len(weights), dtype=torch.int32, device=device)
    distance = torch.empty(len(weights), dtype=torch.float64, device=device)
    midpoints = torch.from_numpy((values[1:] + values[:-1]) / 2).to(device)
    of_place = torch.from_numpy(values).to(device)
    for chunk in weights.chunks():
        mu = weights.mu(chunk).double()
        place[chunk] = torch.searchsorted(midpoints, mu, out_int32=True)
        distance[chunk] = (of_place.index_select(0, place[chunk]) - mu).abs_().div_(weights.scale(chunk))
    return place, distance
