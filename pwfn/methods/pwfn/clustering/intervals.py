"""Which candidates each free weight reaches: they form an interval, which one integer code per weight stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks

LATTICE_BITS = 48
"""Weights stay below 2^48 units of 2^-b, so that float64 still holds fractions of a unit."""
SMALLEST_SIGMA = 2.0**-20
"""Smallest sigma in any distance, as in PWFN's code, so that a sigma of zero divides nothing by zero."""


@dataclass(frozen=True)
class Weights:
    """A selection of weights.

    `all_mu` and `all_sigma` are float32 over all weights; `index` `(num_weights,)` lists those selected, ascending, and
    None selects all.
    """

    all_mu: Tensor
    all_sigma: Tensor
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.all_mu) if self.index is None else len(self.index)

    def chunks(self) -> Iterator[slice]:
        """Chunks of these weights, in ascending order."""
        return chunks(len(self), self.all_mu.device)

    def mu(self, chunk: slice) -> Tensor:
        """Mu of one chunk, float32."""
        return self.all_mu[chunk] if self.index is None else self.all_mu.index_select(0, self.index[chunk])

    def sigma(self, chunk: slice) -> Tensor:
        """Sigma of one chunk, float32."""
        return self.all_sigma[chunk] if self.index is None else self.all_sigma.index_select(0, self.index[chunk])

    def places(self, chunk: slice, within: Tensor) -> Tensor:
        """Turn indices `within` one chunk into indices among all weights."""
        if self.index is None:
            return within.int().add_(chunk.start)
        return self.index[chunk].index_select(0, within)

    def write_(self, target: Tensor, chunk: slice, values: Tensor) -> None:
        """Write the values of one chunk's weights to their entries in `target`, which is over all weights."""
        if self.index is None:
            target[chunk] = values
        else:
            target.scatter_(0, self.index[chunk].long(), values)

    def largest_magnitude(self) -> float:
        """Largest |mu|; there must be at least one weight."""
        return torch.stack([self.mu(chunk).abs().amax() for chunk in self.chunks()]).amax().item()

    def position(self, chunk: slice, b: int) -> Tensor:
        """Position x = mu 2^b of each weight of one chunk, in units of the lattice; float64, which holds it exactly."""
        return self.mu(chunk).double().mul_(2.0**b)

    def scale(self, chunk: slice) -> Tensor:
        """Unit of distance s = max(sigma, 2^-20) of each weight of one chunk, float64."""
        return self.sigma(chunk).clamp(min=SMALLEST_SIGMA).double()


def interval_codes(weights: Weights, lattice: IntArray, *, radius: float, b: int, zero_rule: bool) -> Tensor:
    """Encode for each weight the interval of candidates that it reaches.

    Args:
        weights: the weights to look at.
        lattice: candidates in units of 2^-b, ascending, `(num_candidates,)`.
        radius: k, in sigmas.
        b: a unit is 2^-b.
        zero_rule: whether weights with |mu| < 2^-b reach zero whatever their sigma is.

    Returns:
        `(num_weights,)` integers low * (num_candidates + 1) + high: the weight reaches lattice[low:high], and nothing
        if low >= high. int32 if the largest code fits, else int64.
    """
    base = len(lattice) + 1
    dtype = torch.int32 if base**2 <= torch.iinfo(torch.int32).max else torch.int64
    codes = torch.empty(len(weights), dtype=dtype, device=weights.all_mu.device)
    num_below = _counter(lattice, len(weights), codes.device)
    for chunk in weights.chunks():
        x = weights.position(chunk, b)
        first, end = _reached_integers(x, weights.scale(chunk), radius * 2.0**b)
        if zero_rule:
            _reach_zero_(first, end, x)
        codes[chunk] = num_below(first).to(dtype).mul_(base).add_(num_below(end))
    return codes


def _reached_integers(x: Tensor, s: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """First integer n with |n - x| / s <= reach, and one past the last; first >= end where there is none.

    The quotient as float64 rounds it decides. x - s reach and x + s reach differ from the true ends of the interval by
    less than 2^-51 (|x| + s reach), which is less than 1/2 wherever there are candidates. So only the integer nearest
    to each has to be tested with the quotient.
    """
    first = torch.add(x, s, alpha=-reach).round_()
    first.add_((first - x).abs_().div_(s).gt_(reach))
    end = torch.add(x, s, alpha=reach).round_()
    end.add_((end - x).abs_().div_(s).le_(reach))
    return first, end


def _reach_zero_(first: Tensor, end: Tensor, x: Tensor) -> None:
    """Extend the intervals of the weights with |x| < 1 to zero; this adds no other integer to an interval."""
    bound = x.abs().floor_().mul_(2.0**LATTICE_BITS)  # 0 for these weights, beyond every candidate for all others
    torch.minimum(first, bound, out=first)
    torch.maximum(end, 1 - bound, out=end)


def _counter(lattice: IntArray, num_weights: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Make a function that counts the candidates below each given integer; it takes float64 and returns int32.

    It looks the counts up in a table if that has no more entries than there are weights, else it searches.
    """
    limit = int(lattice[-1])
    if 2 * limit + 2 > num_weights:
        boundaries = torch.from_numpy(lattice).double().to(device)
        return lambda integers: torch.searchsorted(boundaries, integers, out_int32=True)
    table = np.bincount(lattice + limit + 1, minlength=2 * limit + 2).cumsum()
    num_below = torch.from_numpy(table).int().to(device)
    return lambda integers: num_below.index_select(0, integers.clamp_(-limit, limit + 1).add_(limit).int())
