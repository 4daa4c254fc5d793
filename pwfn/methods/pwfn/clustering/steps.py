"""What the weights of one step share: tables by step, and exact sums over each step's weights.

`step` is int32 `(num_weights,)` throughout: the step that fixes each weight in this round, FREE or KEPT for the
others, which are left out of every sum and keep their bits in every write.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks

DoubleArray = npt.NDArray[np.float64]
Term = Callable[[slice], Tensor]

FREE = -1
"""In place of a step: not fixed."""
KEPT = -2
"""In place of a step: fixed in an earlier round and left there."""
NUM_MARKS = 2
"""FREE and KEPT have the first rows of every table."""

FIXED_POINT_BITS = 31
LOW_HALF = 2**FIXED_POINT_BITS - 1
"""Terms are rounded to 2^-31 of the largest in their step, so that sums are of integers: the same in any order."""


def step_table(of_step: DoubleArray, device: torch.device) -> Tensor:
    """Put `(num_steps,)` numbers into a table for `look_up`, with 0 for weights without a step."""
    return torch.from_numpy(np.concatenate([np.zeros(NUM_MARKS), of_step])).to(device)


def look_up(table: Tensor, step: Tensor) -> Tensor:
    """Find each weight's number in a table by step."""
    return table.index_select(0, step + NUM_MARKS)


def write_(target: Tensor, step: Tensor, of_step: DoubleArray) -> None:
    """Set the weights that have a step to its number, rounded to float32."""
    table = step_table(of_step, target.device).float()
    for chunk in chunks(len(target), target.device):
        target[chunk] = torch.where(step[chunk] >= 0, look_up(table, step[chunk]), target[chunk])


def means(term: Term, step: Tensor, counts: IntArray) -> DoubleArray:
    """Mean of float64 `term(chunk)` over the weights of each step, `(num_steps,)`; off by 2^-32 of the largest."""
    total, _, unit = _sums(term, step, len(counts))
    result: DoubleArray = np.array(total, dtype=np.float64) / counts * unit
    return result


def standard_deviations(term: Term, step: Tensor, counts: IntArray) -> DoubleArray:
    """Population standard deviation of float64 `term(chunk)` over the weights of each step, `(num_steps,)`.

    `counts` `(num_steps,)` are their numbers. Off by at most 2^-32 of the largest term: rounding moves the deviation
    by no more than it moves a term.
    """
    total, squares, unit = _sums(term, step, len(counts))
    spread = [n * square - first**2 for n, first, square in zip(counts.tolist(), total, squares, strict=True)]
    deviations: DoubleArray = np.sqrt(np.array(spread, dtype=np.float64)) / counts * unit
    return deviations


def root_mean_squares(term: Term, step: Tensor, counts: IntArray) -> DoubleArray:
    """Root mean square of float64 `term(chunk)` over the weights of each step, `(num_steps,)`; as precise."""
    _, squares, unit = _sums(term, step, len(counts))
    means: DoubleArray = np.sqrt(np.array(squares, dtype=np.float64) / counts) * unit
    return means


def _sums(term: Term, step: Tensor, num_steps: int) -> tuple[list[int], list[int], DoubleArray]:
    """Sum and sum of squares over each step's weights as exact integers, and the power of two that is their unit.

    A square has 62 bits; its halves are summed apart, so that int64 holds the sums of 2^31 weights.
    """
    unit = _units(term, step, num_steps)
    per_unit = torch.from_numpy(1 / unit).to(step.device)
    sums = torch.zeros(3, len(unit), dtype=torch.int64, device=step.device)
    for chunk in chunks(len(step), step.device):
        row = _row(step[chunk])
        whole = term(chunk).mul_(per_unit.index_select(0, row)).round_().long()
        square = whole * whole
        for total, part in zip(sums, (whole, square >> FIXED_POINT_BITS, square & LOW_HALF), strict=True):
            total.scatter_add_(0, row, part)
    first, high, low = sums[:, NUM_MARKS:].tolist()
    squares = [(upper << FIXED_POINT_BITS) + lower for upper, lower in zip(high, low, strict=True)]
    return first, squares, unit[NUM_MARKS:]


def _units(term: Term, step: Tensor, num_steps: int) -> DoubleArray:
    """2^-31 of the power of two above the largest |term|, for each row of a table."""
    largest = torch.zeros(NUM_MARKS + num_steps, dtype=torch.float64, device=step.device)
    for chunk in chunks(len(step), step.device):
        largest.scatter_reduce_(0, _row(step[chunk]), term(chunk).abs_(), "amax")
    _, exponent = np.frexp(largest.cpu().numpy())
    unit: DoubleArray = np.ldexp(1.0, exponent - FIXED_POINT_BITS)
    return unit


def _row(step: Tensor) -> Tensor:
    return (step + NUM_MARKS).long()
