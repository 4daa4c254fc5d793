"""Codebooks that vary inside a tensor: per output channel, per group, per row, as quantisation tools make them.

A tensor is cut into groups; within each, value = scale * level, with levels that all groups share. The levels are whole
numbers (int4, int8, with or without a zero point) or a table of their own (NF4 and its kin, whose largest magnitude is
1). Nothing is guessed: a scale or level is taken only if every product gives the element to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from pwfn.export.palettes import distinct_bits

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

BLOCKS = (16, 32, 64, 128, 256)
"""Sizes of groups of consecutive elements that are tried beside channels."""
MAX_LEVEL = 1024
"""Largest whole number of a grid."""
MAX_LEVELS = 256
SAMPLED_GROUPS = 8
"""Groups that have to be a grid before the whole tensor is looked at."""
DIVISORS = (1, 2, 3)
"""Smallest distances of a group's values that the scale may be a part of."""
STEPS = (0, 1, -1, 2, -2)
"""Units in the last place by which the quotient of two rounded numbers may miss the scale."""
GAP = 1e-6
"""Relative distance below which two levels are one, seen through rounded products."""


@dataclass(frozen=True)
class Scaled:
    """`scales` float32 `(num_groups,)`, `levels` float32 of the tensor's shape, flat; the product is the tensor."""

    scales: FloatArray
    levels: FloatArray
    group: int
    """Element i belongs to group `i // group % num_groups`."""


@dataclass(frozen=True)
class Grouped:
    """`palettes` `(num_groups, num_values)` bit patterns; `symbols` uint8, flat: places in the own group's palette."""

    palettes: npt.NDArray[np.unsignedinteger]
    symbols: npt.NDArray[np.uint8]
    group: int


def groupings(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ways to cut a tensor: number of groups and consecutive elements of each.

    Output channels, blocks of the flattened tensor, input channels, and rows of convolutions.
    """
    size = prod(shape)
    if len(shape) < 2 or not size:
        return
    found = [(shape[0], size // shape[0])]
    found += [(size // block, block) for block in BLOCKS if size % block == 0]
    found += [(shape[1], size // shape[0] // shape[1]), (shape[0] * shape[1], size // shape[0] // shape[1])]
    for num_groups, group in dict.fromkeys(found):
        if num_groups > 1 and (group > 1 or size > num_groups):
            yield num_groups, group


def as_groups(flat: npt.NDArray[Any], num_groups: int, group: int) -> npt.NDArray[Any]:
    """Arrange elements as `(num_groups, elements of each)`."""
    cut = flat.reshape(-1, num_groups, group)
    return cut[0] if len(cut) == 1 else cut.transpose(1, 0, 2).reshape(num_groups, -1)


def from_groups(grouped: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
    """Undo `as_groups`."""
    return grouped.reshape(len(grouped), -1, group).transpose(1, 0, 2).reshape(-1)


def find_scaled(flat: FloatArray, num_groups: int, group: int) -> Scaled | None:
    """Find scales and levels for one way to cut a tensor, or None."""
    groups = as_groups(flat, num_groups, group)
    sample = groups[:: max(num_groups // SAMPLED_GROUPS, 1)]
    for find in (_whole_numbers, _shared_levels):
        if find(sample) is not None and (found := find(groups)) is not None:
            scales, levels = found
            return Scaled(scales, from_groups(levels, group), group)
    return None


def _whole_numbers(groups: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Find a scale per group under which all its elements are whole numbers."""
    if not np.isfinite(groups).all():
        return None
    distances = _smallest_distances(np.abs(groups.astype(np.float64)))
    largest = np.abs(groups).max(axis=1).astype(np.float64)
    scales = np.ones(len(groups), dtype=np.float32)
    levels = np.empty_like(groups)
    open_groups = np.arange(len(groups))
    for divisor in DIVISORS:
        steps = np.rint(largest[open_groups] / distances[open_groups] * divisor)
        if not (steps <= MAX_LEVEL).all():
            return None
        guess = (largest[open_groups] / np.maximum(steps, 1)).astype(np.float32)
        for step in STEPS:
            if not len(open_groups):
                break
            tried = (guess.view(np.int32) + np.int32(step)).view(np.float32)
            tried = np.where(largest[open_groups] > 0, tried, np.float32(1))
            fits, found = _fits(groups[open_groups], tried)
            scales[open_groups[fits]], levels[open_groups[fits]] = tried[fits], found[fits]
            open_groups, guess = open_groups[~fits], guess[~fits]
        if len(open_groups) == len(groups):
            continue
    return None if len(open_groups) else (scales, levels)


def _smallest_distances(magnitudes: DoubleArray) -> DoubleArray:
    """Smallest distance between magnitudes of each group, zero among them; infinite where all are zero."""
    ordered = np.sort(magnitudes, axis=1)
    distances = np.diff(ordered, axis=1, prepend=0.0)
    distances[distances <= GAP * ordered[:, -1:]] = np.inf
    return np.asarray(distances.min(axis=1))


def _fits(groups: FloatArray, scales: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Whether whole numbers times a scale give each group, to the bit, and those numbers."""
    with np.errstate(all="ignore"):
        levels = np.rint(groups.astype(np.float64) / scales[:, None]).astype(np.float32)
        products = levels * scales[:, None]
    normal = (np.abs(products) >= np.finfo(np.float32).tiny) | (products == 0)  # some platforms flush the others
    same = (products.view(np.uint32) == np.ascontiguousarray(groups).view(np.uint32)) & normal
    return same.all(axis=1), levels


def _shared_levels(groups: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Find levels, the largest magnitude 1, that scaled by each group's largest magnitude give its elements."""
    if not np.isfinite(groups).all():
        return None
    largest = np.abs(groups).max(axis=1)
    scales = np.where(largest > 0, largest, np.float32(1))
    ratios = groups.astype(np.float64) / scales[:, None]
    order = np.argsort(ratios, axis=None)
    starts = np.flatnonzero(np.diff(ratios.reshape(-1)[order], prepend=-np.inf) > GAP)
    if len(starts) > min(MAX_LEVELS, groups.size // 4):
        return None
    level_of = np.empty(groups.size, dtype=np.intp)
    level_of[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=groups.size))
    levels = _exact_levels(groups, scales, ratios.reshape(-1)[order], starts, level_of.reshape(groups.shape))
    return None if levels is None else (scales, levels[level_of].reshape(groups.shape))


def _exact_levels(
    groups: FloatArray,
    scales: FloatArray,
    ratios: DoubleArray,
    starts: npt.NDArray[np.intp],
    level_of: npt.NDArray[np.intp],
) -> FloatArray | None:
    """Choose each level among the float32 numbers near its ratios such that all its products are right to the bit."""
    guess = (np.add.reduceat(ratios, starts) / np.diff(starts, append=len(ratios))).astype(np.float32)
    guess[np.abs(guess) < GAP] = 0
    wanted = np.ascontiguousarray(groups).view(np.uint32)
    levels, missing = guess.copy(), np.ones(len(starts), dtype=bool)
    for step in STEPS:
        tried = np.where(guess == 0, guess, (guess.view(np.int32) + np.int32(step)).view(np.float32))
        products = tried[level_of] * scales[:, None]
        normal = (np.abs(products) >= np.finfo(np.float32).tiny) | (products == 0)
        wrong = (products.view(np.uint32) != wanted) | ~normal
        right = np.bincount(level_of.reshape(-1), weights=wrong.reshape(-1), minlength=len(starts)) == 0
        levels[missing & right] = tried[missing & right]
        missing &= ~right
        if not missing.any():
            return levels
    return None


def find_grouped(bits: npt.NDArray[np.unsignedinteger], num_groups: int, group: int) -> Grouped | None:
    """Give each group a palette of its own; None where groups have more than MAX_LEVELS values or hardly repeat any."""
    groups = as_groups(bits, num_groups, group)
    sample = groups[:: max(num_groups // SAMPLED_GROUPS, 1)]
    if max(len(distinct_bits(each)) for each in sample) > min(MAX_LEVELS, groups.shape[1] // 2):
        return None
    order = np.argsort(groups, axis=1)
    ordered = np.take_along_axis(groups, order, axis=1)
    new = np.diff(ordered, axis=1, prepend=ordered[:, :1]) != 0
    ranks = np.cumsum(new, axis=1)
    num_values = int(ranks[:, -1].max()) + 1
    if num_values > MAX_LEVELS:
        return None
    palettes = np.zeros((num_groups, num_values), dtype=bits.dtype)
    np.put_along_axis(palettes, ranks, ordered, axis=1)
    symbols = np.empty(groups.shape, dtype=np.uint8)
    np.put_along_axis(symbols, order, ranks.astype(np.uint8), axis=1)
    return Grouped(palettes, from_groups(symbols, group), group)
