"""What the coder knows of a symbol before it decodes it: the neighbours to its left and above inside the kernel.

On the clustered ResNet-20 and ResNet-32 of CIFAR-10 (8 to 64 values, tables and contexts included) the two classes of
neighbours take 7 to 11 % off one table per layer; the previous weight in row-major order 4 to 7 %, in serpentine order
5 to 9 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pwfn.export.layout import Coding
from pwfn.export.rans import ByteArray, ContextArray
from pwfn.export.rules import MAX_SYMBOLS

MAX_CLASSES = 6
"""Classes of a neighbour: more than six saved less than the larger map of contexts to tables took."""
ENTRIES_PER_WEIGHT = 1 / 4
"""Most numbers (contexts times symbols) that a tensor's contexts may count, per weight: fewer could not be told apart,
and this bounds the encoder's memory."""


def cut(symbols: ByteArray, kernel: tuple[int, int]) -> ByteArray:
    """Arrange symbols `(num_kernels * height * width,)` as `(height * width, num_kernels)`."""
    return np.ascontiguousarray(symbols.reshape(-1, kernel[0] * kernel[1]).T)


def class_of_symbol(coding: Coding) -> ContextArray:
    """Return the class of every symbol that a neighbour can have, `(256,)`, in a type that holds any context, too."""
    thresholds = np.array(coding.thresholds, np.intp)
    classes = np.searchsorted(thresholds, np.arange(MAX_SYMBOLS), side="right")
    return classes.astype(np.min_scalar_type(coding.num_contexts))


def contexts_at(classes: ContextArray, position: int, coding: Coding) -> ContextArray | int:
    """Return the context of one position of every kernel, `(num_kernels,)`, from the positions before it.

    Args:
        classes: of the symbols as `cut` arranges them; rows from `position` on are not looked at.
        position: row-major within the kernel.
        coding: its kernel.
    """
    height, width = coding.kernel
    none = coding.num_classes
    row, column = divmod(position, width)
    left = classes[position - 1] if column else none
    above = classes[position - width] if row else none
    if height == 1:
        return left if width > 1 else 0
    return above if width == 1 else left * (none + 1) + above


def line_contexts(coding: Coding) -> ByteArray:
    """Return the context of every element of a tensor coded by LINES, flat: `class of row * classes + of column`."""
    height, _ = coding.kernel
    classes = np.frombuffer(coding.classes, np.uint8)
    found: ByteArray = classes[:height, None] * np.uint8(coding.num_line_classes) + classes[height:]
    return found.reshape(-1)


def kernel_of(shape: Sequence[int]) -> tuple[int, int]:
    """Return the kernel of a weight of a convolution in one to three dimensions; (1, 1) for anything else."""
    if len(shape) not in (3, 4, 5):
        return 1, 1
    height = int(np.prod(shape[2:-1], dtype=np.int64))
    return height, int(shape[-1])


def thresholds_for(histogram: npt.NDArray[np.int64], kernel: tuple[int, int]) -> tuple[int, ...]:
    """Part symbols into classes of about equal weight, as many as their number of weights can teach.

    Args:
        histogram: `(num_symbols,)`.
        kernel: of the tensor.
    """
    neighbours = (kernel[0] > 1) + (kernel[1] > 1)
    room = max(int(histogram.sum() * ENTRIES_PER_WEIGHT / len(histogram)), 1)
    num_classes = min(MAX_CLASSES, int(room ** (1 / max(neighbours, 1)) + 1e-9) - 1)
    used = np.flatnonzero(histogram)
    if num_classes < 2 or len(used) < 2:
        return ()
    if len(used) <= num_classes:
        return tuple(used[1:].tolist())
    middles = (np.cumsum(histogram) - histogram / 2) / histogram.sum()
    classes = np.minimum((middles * num_classes).astype(np.intp), num_classes - 1)
    return tuple((np.flatnonzero(np.diff(classes)) + 1).tolist())
