"""The greedy choice of centres, on classes of weights that reach the same candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pwfn.clustering.candidates import IntArray
from pwfn.clustering.steps import FREE


@dataclass(frozen=True)
class Classes:
    """Free weights grouped by the candidates they reach, those that reach none left out.

    Int64 `(num_classes,)` each, sorted by `low`: `size` weights reach exactly the candidates low <= c < high.
    """

    low: IntArray
    high: IntArray
    size: IntArray
    code: IntArray
    """The code that the weights of each class carry."""
    num_codes: int
    """Codes are in [0, num_codes)."""


@dataclass(frozen=True)
class Choice:
    """The centres that one stage chose, `(num_steps,)` in the order chosen."""

    centre: IntArray
    """Index among the candidates."""
    count: IntArray
    """Free weights that the centre reached when it was chosen."""
    step_of_code: npt.NDArray[np.int32]
    """The step that takes the weights with each code, int32 `(num_codes,)`; FREE for none."""


def group_codes(codes: Tensor, base: int) -> tuple[Tensor, Classes]:
    """Group weights by their code low * base + high.

    Returns the codes `(num_weights,)` that the classes refer to: the same ones while a table of all codes is not
    larger than a few per weight, otherwise their ranks (which costs a sort, but only where candidates abound).
    """
    if base**2 <= 4 * len(codes):
        size = torch.bincount(codes, minlength=base**2).cpu().numpy()
        code, num_codes = np.flatnonzero(size), base**2
        low, high = np.divmod(code, base)
        size = size[code]
    else:
        present, codes, occurrences = torch.unique(codes, return_inverse=True, return_counts=True)
        low, high = np.divmod(present.cpu().numpy().astype(np.int64), base)
        size, code, num_codes = occurrences.cpu().numpy(), np.arange(len(present)), len(present)
    some = low < high
    return codes, Classes(low[some], high[some], size[some], code[some], num_codes)


def choose_centres(classes: Classes, *, num_candidates: int, need: int, first_step: int) -> Choice:
    """Choose the candidate that reaches most free weights, take them, and so on until `need` weights are taken.

    The first of equally good candidates wins. The last centre may reach more weights than are needed. Ends early when
    no candidate reaches a free weight: then every class is taken. Steps are numbered from `first_step`.
    """
    low, high, size = classes.low, classes.high.copy(), classes.size
    widest = int((high - low).max(initial=0))
    first_class = np.searchsorted(low, np.arange(num_candidates + 1))
    reached = _num_reached(low, high, size, num_candidates)
    step_of_code = np.full(classes.num_codes, FREE, dtype=np.int32)
    centre: list[int] = []
    count: list[int] = []
    while need > 0:
        best = int(reached.argmax())
        if reached[best] == 0:
            break
        begin, end = max(best - widest + 1, 0), min(best + widest, num_candidates)  # no class at `best` leaves these
        near = slice(first_class[begin], first_class[best + 1])
        members = near.start + (high[near] > best).nonzero()[0]
        step_of_code[classes.code[members]] = first_step + len(centre)
        centre.append(best)
        count.append(int(reached[best]))
        need -= count[-1]
        reached[begin:end] -= _num_reached(low[members] - begin, high[members] - begin, size[members], end - begin)
        high[members] = 0  # taken
    return Choice(np.array(centre, dtype=np.int64), np.array(count, dtype=np.int64), step_of_code)


def _num_reached(low: IntArray, high: IntArray, size: IntArray, num_candidates: int) -> npt.NDArray[np.float64]:
    """How many weights reach each candidate: intervals begun less intervals ended; exact, as all sums are < 2^53."""
    begun = np.bincount(low, size, num_candidates + 1)
    begun -= np.bincount(high, size, num_candidates + 1)
    return begun.cumsum()[:num_candidates]
