"""The tail of a round with `growth="nearest"`: weights that no candidate reaches make no new values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.cut import largest
from pwfn.methods.pwfn.clustering.intervals import Weights
from pwfn.methods.pwfn.clustering.steps import FREE, DoubleArray


def fix_to_nearest_(
    step_of_weight: Tensor, free: Weights, values: DoubleArray, *, num: int, first_step: int
) -> tuple[DoubleArray, IntArray]:
    """Fix the `num` free weights that are nearest, in sigmas, to one of `values`; of equally near ones the first.

    Args:
        step_of_weight: int32 over all weights; the step of each weight that is fixed here is written.
        free: the free weights.
        values: float64 `(num_values,)`, ascending, at least one. On the midpoint of two the smaller is the nearest.
        num: how many to fix, from 1 to all that are free.
        first_step: the number of the first new step.

    Returns:
        Value and number of weights of each new step: one for each value that takes a weight, ascending.
    """
    place, distance = _nearest(free, values)
    if num < len(free):
        place[largest(distance, len(free) - num)] = len(values)  # stays free
    count = torch.bincount(place, minlength=len(values) + 1).cpu().numpy()[:-1]
    taking = np.flatnonzero(count)
    step_of_place = np.full(len(values) + 1, FREE, dtype=np.int32)
    step_of_place[taking] = first_step + np.arange(len(taking))
    table = torch.from_numpy(step_of_place).to(place.device)
    for chunk in free.chunks():
        free.write_(step_of_weight, chunk, table.index_select(0, place[chunk]))
    return values[taking], count[taking]


def _nearest(weights: Weights, values: DoubleArray) -> tuple[Tensor, Tensor]:
    """Index of the nearest value, int32, and |c - mu| / s, float64, of each weight."""
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
