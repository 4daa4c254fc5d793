"""Codebooks, sets of shared values, and the definition of every number that is reported about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Codebook:
    """The distinct values of some weights.

    `values` is float32 `(num_values,)`, ascending; zero is +0. `counts` is int64 `(num_values,)`, the number of weights
    with each value, all positive.
    """

    values: FloatArray
    counts: IntArray

    @classmethod
    def of(cls, weights: Tensor) -> Codebook:
        """Count the distinct values of a tensor of any shape; -0.0 and 0.0 are one value."""
        values, counts = torch.unique(weights.detach(), return_counts=True)
        return cls(values.cpu().numpy() + np.float32(0), counts.cpu().numpy())

    @classmethod
    def merge(cls, values: npt.NDArray[np.float64], counts: IntArray) -> Codebook:
        """Build a codebook from values `(n,)`, which may be equal as float32, and their numbers of weights `(n,)`."""
        distinct, index = np.unique(values.astype(np.float32) + np.float32(0), return_inverse=True)
        return cls(distinct, np.bincount(index, weights=counts, minlength=len(distinct)).astype(np.int64))


@dataclass(frozen=True)
class CodebookMetrics:
    """The metrics of a codebook. Entropies are in bits per weight, sparsity in [0, 1], orders in powers of two."""

    unique_values: int = 0
    unique_nonzero: int = 0
    entropy_bits: float = 0.0
    entropy_nonzero_bits: float = 0.0
    sparsity: float = 0.0
    mean_order: float = 0.0
    max_order: int = 0


def measure_codebook(codebook: Codebook) -> CodebookMetrics:
    """Compute every codebook metric; an empty codebook gives zeros."""
    if len(codebook.values) == 0:
        return CodebookMetrics()
    nonzero = codebook.values != 0
    orders = value_orders(codebook.values)
    total = codebook.counts.sum()
    return CodebookMetrics(
        unique_values=len(codebook.values),
        unique_nonzero=int(nonzero.sum()),
        entropy_bits=entropy_bits(codebook.counts),
        entropy_nonzero_bits=entropy_bits(codebook.counts[nonzero]),
        sparsity=float(codebook.counts[~nonzero].sum() / total),
        mean_order=float((orders * codebook.counts).sum() / total),
        max_order=int(orders.max()),
    )


def float32_below(numbers: npt.NDArray[np.float64]) -> FloatArray:
    """Round float64 numbers down to float32.

    A float32 weight is above the result exactly if it is above the float64 number.
    """
    near = numbers.astype(np.float32)
    return np.where(near > numbers, np.nextafter(near, np.float32(-np.inf)), near)


def entropy_bits(counts: IntArray) -> float:
    """Shannon entropy in bits of values that occur with positive counts `(num_values,)`; 0 if there are none."""
    if len(counts) == 0:
        return 0.0
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum() + 0.0)


def value_orders(values: FloatArray) -> IntArray:
    """Order of each float32 value `(num_values,)`: the number of distinct powers of two that sum to it; 0 for zero.

    It is the number of ones in the binary significand, and so defined for the values of every method.
    """
    bits = values.astype(np.float32).view(np.uint32)
    exponent = (bits >> 23) & 0xFF
    significand = (bits & 0x7FFFFF) | np.where(exponent > 0, 1 << 23, 0).astype(np.uint32)
    return np.asarray(np.bitwise_count(significand), dtype=np.int64)
