"""The values that tensors share: found in any tensor by its bits, joined over tensors that share them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pwfn.export.layout import MAX_VALUES
from pwfn.export.rans import PaletteArray
from pwfn.export.rules import MAX_SYMBOLS

SAMPLE = 1 << 16
"""Elements of a large tensor that are looked at first."""
MAX_DISTINCT_SHARE = 0.95
"""Share of distinct values in the sample above which a tensor is not looked at further: even MAX_VALUES values, all
equally frequent, repeat more often; and to find every value of 25 million floats takes longer than to code them."""
JOINED_SHARE = 0.5
"""Share of a tensor's values that a palette must hold for the tensor to join it."""
PIECE = 1 << 20
"""Elements looked up at once: bounds the memory beyond input and output."""


def distinct_bits(bits: PaletteArray) -> PaletteArray:
    """Return what np.unique returns of flat bit patterns, in a hundredth of its time where hardly any of them repeats.

    numpy 2.4 hashes: 550 ns an element for 250,000 floats, a sort takes 5; for 16 values 12 and 2.
    """
    ordered = np.sort(bits)
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def distinct_values(bits: PaletteArray) -> PaletteArray | None:
    """Return a flat tensor's distinct bit patterns, ascending as whole numbers; None where they hardly repeat."""
    sample = bits[:: len(bits) // SAMPLE] if len(bits) > 4 * SAMPLE else bits[:0]
    if len(distinct_bits(sample)) > MAX_DISTINCT_SHARE * len(sample):
        return None
    if bits.itemsize == 1:
        return np.flatnonzero(np.bincount(bits, minlength=MAX_SYMBOLS)).astype(bits.dtype)
    found = distinct_bits(bits)
    return found if len(found) <= MAX_VALUES else None


def in_order(values: PaletteArray, dtype: str) -> PaletteArray:
    """Sort bit patterns as the numbers they stand for, so that neighbouring symbols are neighbouring values."""
    sign = values.dtype.type(1 << (8 * values.itemsize - 1))
    negative = values & sign != 0
    if dtype.startswith(("U", "BOOL")):
        keys = values
    elif dtype.startswith("I"):
        keys = values ^ sign
    else:
        keys = np.where(negative, ~values, values | sign)
    return values[np.argsort(keys, kind="stable")]


def join_palettes(distinct: Sequence[PaletteArray], dtype: str) -> tuple[list[PaletteArray], list[int]]:
    """Give tensors that share values one palette.

    Args:
        distinct: of each tensor, of one element type.
        dtype: that type.

    Returns:
        The palettes, and the palette of each tensor.
    """
    everything, ids = np.unique(np.concatenate(distinct), return_inverse=True)
    ends = np.cumsum([len(values) for values in distinct])
    owner = np.full(len(everything), -1)
    members: list[list[npt.NDArray[np.intp]]] = []
    sizes: list[int] = []
    palette_of = [0] * len(distinct)
    for tensor in sorted(range(len(distinct)), key=lambda each: -len(distinct[each])):
        own = ids[ends[tensor] - len(distinct[tensor]) : ends[tensor]]
        free = own[owner[own] < 0]
        owners, counts = np.unique(owner[own][owner[own] >= 0], return_counts=True)
        best = int(counts.argmax()) if len(counts) else -1
        joins = best >= 0 and counts[best] >= JOINED_SHARE * len(own)
        palette = int(owners[best]) if joins else len(members)
        if joins and not _may_grow(sizes[palette], len(own) - int(counts[best])):
            joins, palette = False, len(members)
        if not joins:
            members.append([])
            sizes.append(0)
        members[palette].append(own)
        sizes[palette] += len(own) - (int(counts[best]) if joins else 0)
        owner[free] = palette
        palette_of[tensor] = palette
    return [in_order(everything[np.unique(np.concatenate(each))], dtype) for each in members], palette_of


def _may_grow(size: int, added: int) -> bool:
    """Whether a palette stays one of a single digit, and possible at all."""
    limit = MAX_SYMBOLS if size <= MAX_SYMBOLS else MAX_VALUES
    return size + added <= limit


def look_up(bits: PaletteArray, palette: PaletteArray) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return each element's place in a palette that holds them all."""
    order = np.argsort(palette)
    narrow = order.astype(np.uint8 if len(palette) <= MAX_SYMBOLS else np.uint16)
    if bits.itemsize == 1:
        table = np.zeros(MAX_SYMBOLS, dtype=narrow.dtype)
        table[palette] = np.arange(len(palette))
        return table[bits]
    found = np.empty(bits.shape, dtype=narrow.dtype)
    shift = 8 * max(bits.itemsize - 2, 0)
    keys = palette >> shift
    table = np.zeros(1 << 16, dtype=narrow.dtype)
    table[keys] = np.arange(len(palette))
    upper_is_enough = len(np.unique(keys)) == len(palette)  # three times as fast as to search
    for start in range(0, len(bits), PIECE):
        own = bits[start : start + PIECE]
        by_search = None if upper_is_enough else narrow[np.searchsorted(palette, own, sorter=order)]
        found[start : start + PIECE] = table[own >> shift] if by_search is None else by_search
    return found
