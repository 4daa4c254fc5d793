"""The values that WFN proposes: a geometric grid, each value rounded to few powers of two (WFN, section 3.1)."""

from __future__ import annotations

from math import ceil, floor, log, log2

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]

LARGEST_SPACING = 0.9999
"""Neighbours whose reaches just touch are (1 + a)/(1 - a) apart, which has no meaning from a = 1 on."""
ROUNDING = 1e-9
"""Tolerance, as a share of a step: a grid value that equals the largest weight belongs to the grid even if rounding of
its logarithm says otherwise."""


def centres(order: int, *, spacing: float, zero_distance: float, largest: float) -> DoubleArray:
    """Propose the values of one order: the grid rounded, zero, and their negatives, float64 ascending and distinct.

    Args:
        order: w, powers of two that may be added to or taken from the nearest one.
        spacing: a, relative distance from a value to the edge of its reach; counts as 0.9999 where it is larger.
        zero_distance: the grid's first positive value.
        largest: the grid goes up to this magnitude; below `zero_distance` zero is the only value.
    """
    spacing = min(spacing, LARGEST_SPACING)
    rounded = round_to_powers(
        _grid(spacing, zero_distance, largest), order, spacing=spacing, zero_distance=zero_distance
    )
    return np.unique(np.concatenate([-rounded, [0.0], rounded]))


def _grid(spacing: float, zero_distance: float, largest: float) -> DoubleArray:
    """Positive values from `zero_distance` to `largest` whose relative reaches just touch."""
    if largest < zero_distance:
        return np.empty(0)
    ratio = (1 + spacing) / (1 - spacing)
    num_steps = floor(log(largest / zero_distance) / log(ratio) + ROUNDING)
    return np.asarray(zero_distance * ratio ** np.arange(num_steps + 1), dtype=np.float64)


def round_to_powers(values: DoubleArray, order: int, *, spacing: float, zero_distance: float) -> DoubleArray:
    """Write positive values as their nearest power of two and at most `order` signed ones more.

    A value gets another power only while it is off by `spacing` of itself or more. Nearest is meant in log space, and
    no power is below zero_distance 2^-(order + 1). Values below `zero_distance` become zero.
    """
    smallest = ceil(log2(zero_distance) - order - 1)
    rounded = np.where(values < zero_distance, 0.0, _nearest_power(values, smallest))
    for _ in range(order):
        residual = values - rounded
        off = (np.abs(residual) >= spacing * values) & (rounded != 0)
        if not off.any():
            break
        rounded[off] += _nearest_power(residual[off], smallest)
    return rounded


def _nearest_power(values: DoubleArray, smallest_exponent: int) -> DoubleArray:
    """Round non-zero values in log space to powers of two, their signs kept."""
    exponents = np.maximum(np.round(np.log2(np.abs(values))), smallest_exponent)
    return np.copysign(np.exp2(exponents), values)
