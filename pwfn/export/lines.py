"""What the coder knows of a weight without neighbours in a kernel: how large its row's and its column's weights are.

For linear layers and 1x1 convolutions. Rows (outputs) and columns (inputs) are parted into four classes each by their
mean magnitude, and the header says the class of each. `docs/log.md` has what this saves, and what else was tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pwfn.export.contexts import kernel_of, line_contexts
from pwfn.export.layout import MAX_KERNEL, Coding, Kind
from pwfn.export.palettes import in_order, look_up
from pwfn.export.rans import ByteArray, PaletteArray
from pwfn.export.rules import MAX_SYMBOLS
from pwfn.export.tables import ENTRY_BYTES, TABLE_BYTES, code_bits

NUM_CLASSES = 4
"""Classes of rows, and of columns: with eight, the contexts took what they saved."""
LEAST_LINES = 4 * NUM_CLASSES
"""Rows and columns below which the classes cost more than they tell."""
LINE_BYTES = 0.3
"""What the class of a line takes in the deflated header."""
NEW_TABLES = 3
"""Tables that the contexts of a tensor add, after those of all tensors are merged."""
COUNTED_AT_ONCE = 1 << 20
"""Elements counted at once: bounds the memory beyond input and output."""


def find_classes(bits: PaletteArray, dtype: str, shape: Sequence[int], distinct: PaletteArray) -> bytes | None:
    """Return the classes of a tensor's rows, then of its columns, or None where they would not save bytes.

    Args:
        bits: flat.
        dtype: of the elements; only float32 is looked at.
        shape: of the tensor; its rows are the first axis.
        distinct: its distinct values, as `distinct_values` returns them.
    """
    if dtype != "F32" or len(shape) < 2 or not 1 < len(distinct) <= MAX_SYMBOLS:
        return None
    num_rows, num_columns = shape[0], bits.size // shape[0]
    kernel = kernel_of(shape)
    if 1 < kernel[0] * kernel[1] <= MAX_KERNEL or min(num_rows, num_columns) < LEAST_LINES:
        return None
    magnitudes = np.abs(bits.view(np.float32).reshape(num_rows, num_columns))
    if not np.isfinite(distinct.view(np.float32)).all():
        return None
    classes = np.concatenate([_classes(magnitudes.mean(axis=axis, dtype=np.float64)) for axis in (1, 0)])
    palette = in_order(distinct, dtype)
    coding = Coding(Kind.LINES, kernel=(num_rows, num_columns), classes=classes.tobytes())
    counts = count_contexts(look_up(bits, palette).view(np.uint8), coding, len(palette))
    saved = (code_bits(counts.sum(axis=0)[None])[0] - code_bits(counts).sum()) / 8
    costs = LINE_BYTES * len(classes) + NUM_CLASSES**2 + NEW_TABLES * (TABLE_BYTES + ENTRY_BYTES * len(palette))
    return coding.classes if saved > costs else None


def _classes(sizes: npt.NDArray[np.float64]) -> ByteArray:
    """Part lines into classes of equal numbers by their size."""
    ranks = np.empty(len(sizes), dtype=np.intp)
    ranks[np.argsort(sizes, kind="stable")] = np.arange(len(sizes))
    return (ranks * NUM_CLASSES // len(sizes)).astype(np.uint8)


def count_contexts(symbols: ByteArray, coding: Coding, num_values: int) -> npt.NDArray[np.int64]:
    """Count the symbols of each context, `(num_contexts, num_values)`, of a tensor coded by LINES."""
    contexts = line_contexts(coding)
    counts = np.zeros((coding.num_contexts, num_values), dtype=np.int64)
    for first in range(0, len(symbols), COUNTED_AT_ONCE):
        piece = slice(first, first + COUNTED_AT_ONCE)
        places = contexts[piece].astype(np.intp) * num_values + symbols[piece]
        counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
    return counts
