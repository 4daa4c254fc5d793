"""The greedy choice of centres, on classes of weights that reach the same candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks
from pwfn.methods.pwfn.clustering.clusters import FREE


@dataclass(frozen=True)
class Classes:
    """Free weights grouped by the candidates that they reach; weights that reach no candidate are left out.

    All arrays are int64 `(num_classes,)`, sorted by `low`: `size` weights reach exactly the candidates low <= c < high.
    """

    low: IntArray
    high: IntArray
    size: IntArray
    code: IntArray
    """The code that the weights of each class have."""
    num_codes: int
    """Codes are in [0, num_codes)."""


@dataclass(frozen=True)
class Choice:
    """The clusters of one stage, in the order in which their centres were chosen; arrays are `(num_clusters,)`."""

    centre: IntArray
    """Index among the candidates."""
    count: IntArray
    """Number of free weights that the centre reached when it was chosen."""
    cluster_of_code: npt.NDArray[np.int32]
    """Number of the cluster that takes the weights with each code, int32 `(num_codes,)`; FREE where none does."""


def group_codes(codes: Tensor, base: int) -> Classes:
    """Group weights by their code low * base + high.

    Args:
        codes: `(num_weights,)`. If there are at most as many possible codes, base^2, as weights, they are only counted.
            Otherwise each is overwritten by its rank among the codes that occur.
        base: above every `low` and every `high`.
    """
    if base**2 <= len(codes):
        num_codes = base**2
        size = torch.bincount(codes, minlength=num_codes).cpu().numpy()
        number = present = np.flatnonzero(size)
        size = size[present]
    else:
        present, size = _rank_(codes)
        num_codes = len(present)
        number = np.arange(num_codes)
    low, high = np.divmod(present, base)
    some = low < high
    return Classes(low[some], high[some], size[some], number[some], num_codes)


def _rank_(codes: Tensor) -> tuple[IntArray, IntArray]:
    """Overwrite each code by its rank; return the distinct codes, ascending, and how often each occurs."""
    pieces = [torch.unique(codes[chunk], return_counts=True) for chunk in chunks(len(codes), codes.device)]
    present, rank = torch.unique(torch.cat([distinct for distinct, _ in pieces]), return_inverse=True)
    size = torch.zeros(len(present), dtype=torch.int64, device=codes.device)
    size.scatter_add_(0, rank, torch.cat([counts for _, counts in pieces]))
    for chunk in chunks(len(codes), codes.device):
        codes[chunk] = torch.searchsorted(present, codes[chunk])
    return present.long().cpu().numpy(), size.cpu().numpy()


def choose_centres(classes: Classes, *, num_candidates: int, need: int, first_cluster: int) -> Choice:
    """Choose the candidate that reaches most free weights, fix these to it, and repeat until `need` weights are fixed.

    Among equally good candidates the first is chosen. The last centre may reach more weights than are needed. The
    choice ends early when no candidate reaches a free weight; every class has been taken then.

    Args:
        classes: the free weights.
        num_candidates: number of candidates that the classes refer to.
        need: number of weights to fix.
        first_cluster: number of the first new cluster; the others count on from it.
    """
    low, high, size = classes.low, classes.high.copy(), classes.size
    widest = int((high - low).max(initial=0))
    first_class = np.searchsorted(low, np.arange(num_candidates + 1))
    reached = _num_reached(low, high, size, num_candidates)
    cluster_of_code = np.full(classes.num_codes, FREE, dtype=np.int32)
    centre: list[int] = []
    count: list[int] = []
    while need > 0:
        best = int(reached.argmax())
        if reached[best] == 0:
            break
        # Every class that reaches candidate `best` reaches only candidates from `begin` to `end`.
        begin, end = max(best - widest + 1, 0), min(best + widest, num_candidates)
        near = slice(first_class[begin], first_class[best + 1])
        members = near.start + (high[near] > best).nonzero()[0]
        cluster_of_code[classes.code[members]] = first_cluster + len(centre)
        centre.append(best)
        count.append(int(reached[best]))
        need -= count[-1]
        reached[begin:end] -= _num_reached(low[members] - begin, high[members] - begin, size[members], end - begin)
        high[members] = 0  # taken
    return Choice(np.array(centre, dtype=np.int64), np.array(count, dtype=np.int64), cluster_of_code)


def _num_reached(low: IntArray, high: IntArray, size: IntArray, num_candidates: int) -> npt.NDArray[np.float64]:
    """Count the weights that reach each candidate, `(num_candidates,)`: intervals that began minus those that ended.

    The counts are exact, as float64 holds every integer below 2^53.
    """
    begun = np.bincount(low, size, num_candidates + 1)
    begun -= np.bincount(high, size, num_candidates + 1)
    return begun.cumsum()[:num_candidates]
