"""WFN's round and regulariser written down as the paper states them: dense, slow, and the judge of the fast ones.

Nothing here is shared with `pwfn.methods.wfn`: values are rounded one by one, distances are a (weights, centres)
matrix, the running mean is a loop, and the regulariser is left to autograd.
"""

from __future__ import annotations

from math import ceil, copysign, log2

import numpy as np
import numpy.typing as npt
import torch

DoubleArray = npt.NDArray[np.float64]


def slow_power(value: float, smallest_exponent: int) -> float:
    """The nearest power of two in log space, with the sign of the value."""
    return copysign(2.0 ** max(round(log2(abs(value))), smallest_exponent), value)


def slow_round(value: float, order: int, spacing: float, zero_distance: float) -> float:
    """One positive grid value as the nearest power of two and up to `order` signed ones."""
    if value < zero_distance:
        return 0.0
    smallest = ceil(log2(zero_distance) - order - 1)
    current = slow_power(value, smallest)
    for _ in range(order):
        residual = value - current
        if abs(residual) >= spacing * value * (1 - 1e-9) and current != 0:  # equal but for rounding
            current += slow_power(residual, smallest)
    return current


def slow_centres(order: int, spacing: float, zero_distance: float, largest: float) -> DoubleArray:
    """The grid up to the largest magnitude, rounded; zero; and all negatives."""
    spacing = min(spacing, 0.9999)
    grid, value = [], zero_distance
    while value <= largest * (1 + 1e-10):  # the last one may equal it but for rounding
        grid.append(value)
        value = value * (1 + spacing) / (1 - spacing)
    positive = {slow_round(value, order, spacing, zero_distance) for value in grid}
    return np.array(sorted({0.0} | positive | {-value for value in positive}))


def slow_assign(
    weights: npt.NDArray[np.float32],
    fixed: npt.NDArray[np.bool_],
    *,
    need: int,
    allowed: float,
    zero_distance: float,
) -> list[tuple[float, list[int]]]:
    """Values and the indices of their weights, in the order in which they are fixed."""
    w = weights.astype(np.float64)
    unassigned = [int(i) for i in np.flatnonzero(~fixed)]
    groups = []
    order, current_allowed = 0, allowed
    while need > 0:
        centres = slow_centres(order, allowed, zero_distance, max(abs(w[i]) for i in unassigned))
        nearest = np.abs(w[unassigned][:, None] - centres[None, :]).argmin(axis=1)  # the smaller one of equals
        best = np.bincount(nearest, minlength=len(centres)).argmax()
        c = centres[best]
        members = [i for i, k in zip(unassigned, nearest, strict=True) if k == best]

        def distance(i, c=c):
            if c == 0 and abs(w[i]) < zero_distance:
                return 0.0
            return abs(w[i] - c) / abs(w[i])

        members.sort(key=lambda i: (distance(i), w[i], i))
        taken, total = [], 0.0
        for i in members:
            total += distance(i)
            # A mean may equal what is allowed but for rounding: of 0.1, 0.1 and 0.1 the sum is a little more than 0.3.
            if total / (len(taken) + 1) > current_allowed + 2**-31 or len(taken) == need:
                break
            taken.append(i)
        if taken:
            groups.append((float(c), taken))
            unassigned = [i for i in unassigned if i not in set(taken)]
            need -= len(taken)
            current_allowed = allowed
        elif order < 20:
            order += 1
        else:
            current_allowed *= 2
    return groups


def slow_distances(w: torch.Tensor, centres: torch.Tensor, zero_distance: float) -> torch.Tensor:
    """Each weight's distance to each centre, `(n, k)`: relative, but absolute for small weights, 0 from them to 0."""
    absolute = (w[:, None] - centres[None, :]).abs()
    small = (w.abs() <= zero_distance)[:, None]
    relative = absolute / torch.where(small, 1.0, w.abs()[:, None])
    return torch.where(small & (centres == 0)[None, :], 0.0, torch.where(small, absolute, relative))


def slow_expected_distances(
    w: torch.Tensor, centres: torch.Tensor, temperature: float, zero_distance: float
) -> torch.Tensor:
    """Sum over all centres of softmin_j(d_ij / tau) d_ij, `(n,)`; differentiable."""
    d = slow_distances(w, centres, zero_distance)
    return (torch.softmax(-d / temperature, dim=1) * d).sum(dim=1)
