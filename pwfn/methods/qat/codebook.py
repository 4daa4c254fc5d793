"""The values that a stage starts with: k-means of latent weights, with zero or as sums of powers of two if wanted."""

from __future__ import annotations

import numpy as np

from pwfn.codebook import FloatArray, IntArray
from pwfn.config import QatConfig
from pwfn.errors import UserError
from pwfn.methods.kmeans.values import kmeans_values, nearest_values

MAX_LLOYD_STEPS = 20
"""Most of Lloyd's steps after one value was moved to zero; few are enough, as training moves the values on."""


def first_values(
    weights: FloatArray, num_values: int, importance: FloatArray | None, *, zero: bool, candidates: FloatArray | None
) -> FloatArray:
    """Choose the values of a stage.

    Args:
        weights: finite, `(num_weights,)`.
        num_values: number of values; there are fewer if the weights have fewer distinct values.
        importance: positive, `(num_weights,)`; None: all weights count alike.
        zero: whether one value must be exactly zero.
        candidates: the only values that are allowed, ascending, at least `num_values`; None allows any number.

    Returns:
        Distinct values, ascending.
    """
    values = kmeans_values(weights, num_values, importance)
    if zero:
        values = with_zero(values, weights, importance)
    return values if candidates is None else distinct_candidates(values, counts_of(weights, values), candidates)


def with_zero(values: FloatArray, weights: FloatArray, importance: FloatArray | None) -> FloatArray:
    """Move the value nearest to zero to zero, then move the others by Lloyd's steps; return them, ascending."""
    values = values.copy()
    values[np.abs(values).argmin()] = 0
    for _ in range(MAX_LLOYD_STEPS):
        place = np.searchsorted(values, nearest_values(weights, values))
        mass = np.bincount(place, weights=importance, minlength=len(values))
        moment = np.bincount(
            place, weights=weights if importance is None else weights * importance, minlength=len(values)
        )
        means = np.where(mass > 0, moment / np.maximum(mass, np.finfo(np.float64).tiny), values).astype(np.float32)
        moved = np.unique(np.where(values == 0, np.float32(0), means))
        if np.array_equal(moved, values):
            break
        values = moved
    return values


def counts_of(weights: FloatArray, values: FloatArray) -> IntArray:
    """Count the weights that are nearest to each of the ascending values, `(num_values,)`."""
    return np.bincount(np.searchsorted(values, nearest_values(weights, values)), minlength=len(values))


def distinct_candidates(values: FloatArray, counts: IntArray, candidates: FloatArray) -> FloatArray:
    """Move each value to the nearest candidate that no other value has taken; return them, ascending.

    Zero chooses first, then the value with the most weights, and so on.
    """
    is_free = np.ones(len(candidates), dtype=bool)
    for value in values[np.lexsort([-counts, values != 0])]:
        distance = np.where(is_free, np.abs(candidates - value), np.inf)
        is_free[distance.argmin()] = False
    return candidates[~is_free]


def power_candidates(config: QatConfig, largest: float) -> FloatArray:
    """List zero, the sums of at most `max_order` powers of two, and their negatives; ascending, float32.

    The smallest power is 2^-b. No sum exceeds the first power of two that is at least `largest`.

    Raises:
        UserError: there are fewer of them than values in the first stage.
    """
    top = int(np.ceil(np.log2(largest))) if largest > 0 else -config.b
    sums = {0}
    powers = [2**power for power in range(max(top, -config.b) + config.b + 1)]
    for _ in range(config.max_order):
        sums |= {total + power for total in sums for power in powers if total + power <= powers[-1]}
    positive = np.array(sorted(sums)[1:], dtype=np.float64) * 2.0**-config.b
    candidates = np.concatenate([-positive[::-1], [0], positive]).astype(np.float32)
    if len(candidates) < config.sizes[0]:
        raise UserError(
            f"method.values=powers_of_two: {config.sizes[0]} values are asked for, but there are only "
            f"{len(candidates)} sums of at most method.max_order={config.max_order} powers of two from 2^-{config.b} "
            f"(method.b) up to the largest weight, {largest:.3g}; allow more of them or ask for fewer values"
        )
    return candidates
