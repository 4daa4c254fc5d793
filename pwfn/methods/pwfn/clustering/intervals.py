"""Which candidates each free weight reaches: an interval, as one integer code per weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks

LATTICE_BITS = 48
"""Weights stay below 2^48 lattice units, so that float64 resolves them far below one unit."""
SMALLEST_SIGMA = 2.0**-20
"""Floor of sigma in every distance (PWFN's code): a collapsed sigma must not divide by zero."""


@dataclass(frozen=True)
class Weights:
    """Some of all weights: `index` `(num_weights,)` lists them, ascending; None stands for all.

    `all_mu` and `all_sigma` are float32 over all weights.
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
        """Where the weights `within` one chunk are among all weights."""
        if self.index is None:
            return within.int().add_(chunk.start)
        return self.index[chunk].index_select(0, within)

    def write_(self, target: Tensor, chunk: slice, values: Tensor) -> None:
        """Set the entries of one chunk in a `target` over all weights."""
        if self.index is None:
            target[chunk] = values
        else:
            target.scatter_(0, self.index[chunk].long(), values)

    def largest_magnitude(self) -> float:
        """Largest |mu|; there must be a weight."""
        return torch.stack([self.mu(chunk).abs().amax() for chunk in self.chunks()]).amax().item()

    def position(self, chunk: slice, b: int) -> Tensor:
        """Lattice position x = mu 2^b of one chunk in float64, which is exact."""
        return self.mu(chunk).double().mul_(2.0**b)

    def scale(self, chunk: slice) -> Tensor:
        """Unit of distance s = max(sigma, 2^-20) of one chunk, float64."""
        return self.sigma(chunk).clamp(min=SMALLEST_SIGMA).double()


def interval_codes(weights: Weights, lattice: IntArray, *, radius: float, b: int, zero_rule: bool) -> Tensor:
    """Encode which candidates each weight reaches.

    Args:
        weights: the weights to look at.
        lattice: candidates in units of 2^-b, ascending, `(num_candidates,)`.
        radius: k, in sigmas.
        b: a unit is 2^-b.
        zero_rule: weights with |mu| < 2^-b reach zero whatever their sigma.

    Returns:
        `(num_weights,)` integers low * (num_candidates + 1) + high: the weight reaches lattice[low:high], none where
        low >= high. int32 where that holds them.
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

    The quotient as float64 rounds it is the definition. x -+ s reach is off from it by less than 2^-51 (|x| + s reach),
    so by less than 1/2 wherever candidates are: only the integer nearest to it has to be asked.
    """
    first = torch.add(x, s, alpha=-reach).round_()
    first.add_((first - x).abs_().div_(s).gt_(reach))
    end = torch.add(x, s, alpha=reach).round_()
    end.add_((end - x).abs_().div_(s).le_(reach))
    return first, end


def _reach_zero_(first: Tensor, end: Tensor, x: Tensor) -> None:
    """Extend the intervals of the weights in (-1, 1) to zero; no other integer lies between."""
    bound = x.abs().floor_().mul_(2.0**LATTICE_BITS)  # 0 for those weights, beyond every candidate for others
    torch.minimum(first, bound, out=first)
    torch.maximum(end, 1 - bound, out=end)


def _counter(lattice: IntArray, num_weights: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from integers, given as float64, to how many candidates lie below them, int32.

    A look-up table where it is no longer than the weights are many, else a binary search.
    """
    limit = int(lattice[-1])
    if 2 * limit + 2 > num_weights:
        boundaries = torch.from_numpy(lattice).double().to(device)
        return lambda integers: torch.searchsorted(boundaries, integers, out_int32=True)
    table = np.bincount(lattice + limit + 1, minlength=2 * limit + 2).cumsum()
    num_below = torch.from_numpy(table).int().to(device)
    return lambda integers: num_below.index_select(0, integers.clamp_(-limit, limit + 1).add_(limit).int())
