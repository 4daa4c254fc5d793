"""The values that WFN proposes: a geometric grid rounded to sums of few powers of two (WFN, section 3.1)."""

from __future__ import annotations

from math import ceil, floor, log, log2

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]

LARGEST_SPACING = 0.9999
"""Largest spacing a: the ratio of neighbouring values is (1 + a) / (1 - a), which has no meaning from a = 1 on."""
ROUNDING = 1e-9
"""Tolerance where two numbers may be equal but for rounding: a value that equals the largest weight belongs to the
grid, and an error that equals the spacing is large enough for a further power."""


def centres(order: int, *, spacing: float, zero_distance: float, largest: float) -> DoubleArray:
    """Propose the values of one order: the rounded grid, zero, and their negatives; float64, ascending and distinct.

    Args:
        order: the paper's omega, how many powers of two may be added to the nearest one or subtracted from it.
        spacing: relative distance up to which a weight is within reach of a value; above 0.9999 it counts as 0.9999.
        zero_distance: the grid's first positive value.
        largest: largest magnitude in the grid; if it is below `zero_distance`, zero is the only value.
    """
    spacing = min(spacing, LARGEST_SPACING)
    rounded = round_to_powers(
        _grid(spacing, zero_distance, largest), order, spacing=spacing, zero_distance=zero_distance
    )
    return np.unique(np.concatenate([-rounded, [0.0], rounded]))


def _grid(spacing: float, zero_distance: float, largest: float) -> DoubleArray:
    """Positive values from `zero_distance` to `largest`; the reach of each ends where that of the next begins."""
    if largest < zero_distance:
        return np.empty(0)
    ratio = (1 + spacing) / (1 - spacing)
    last = floor(log(largest / zero_distance) / log(ratio) + ROUNDING)
    return np.asarray(zero_distance * ratio ** np.arange(last + 1), dtype=np.float64)


def round_to_powers(values: DoubleArray, order: int, *, spacing: float, zero_distance: float) -> DoubleArray:
    """Round positive values to sums of the nearest power of two and at most `order` further signed ones.

    A value gets a further power only while the error is at least `spacing` times the value. The nearest power is the
    one with the nearest logarithm, and none is below zero_distance 2^-(order + 1). Values below `zero_distance` become
    zero.
    """
    smallest = ceil(log2(zero_distance) - order - 1)
    rounded = np.where(values < zero_distance, 0.0, _nearest_power(values, smallest))
    for _ in range(order):
        residual = values - rounded
        off = (np.abs(residual) >= (1 - ROUNDING) * spacing * values) & (rounded != 0)
        if not off.any():
            break
        rounded[off] += _nearest_power(residual[off], smallest)
    return rounded


def _nearest_power(values: DoubleArray, smallest_exponent: int) -> DoubleArray:
    """Round the logarithm of non-zero magnitudes, so that they become powers of two; signs stay."""
    exponents = np.maximum(np.round(np.log2(np.abs(values))), smallest_exponent)
    return np.copysign(np.exp2(exponents), values)
