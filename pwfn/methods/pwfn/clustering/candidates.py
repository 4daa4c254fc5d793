"""The values that weights may be fixed to: sums of powers of two, as integers in units of 2^-b (PWFN, section 3)."""

from __future__ import annotations

from functools import lru_cache
from math import frexp

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def candidates(order: int, largest: float) -> IntArray:
    """Candidates of one stage in units of 2^-b, int64 `(num_candidates,)`.

    They are ascending; zero is one of them, and so is the negative of each.

    Args:
        order: the paper's R, the largest number of powers of two in a sum; at least 1.
        largest: m 2^b, where m is the largest magnitude among the free weights; no candidate exceeds it.
    """
    positive = sums_of_powers(_num_powers(largest), order)[1:]
    positive = positive[: np.searchsorted(positive, largest, side="right")]
    return np.concatenate([-positive[::-1], np.zeros(1, dtype=np.int64), positive])


def _num_powers(largest: float) -> int:
    """Number of powers 1, 2, 4, ... that enter the sums: all up to 2^(ceil(log2 largest) - 1).

    `frexp` is exact where `log2` would round.
    """
    if largest <= 1:
        return 0
    significand, exponent = frexp(largest)
    return exponent - 1 if significand == 0.5 else exponent


@lru_cache(maxsize=64)
def sums_of_powers(num_powers: int, order: int) -> IntArray:
    """Sums of `order` elements of {0, 1, 2, 4, ..., 2^(num_powers - 1)}, repetition allowed: those up to 2^num_powers.

    Ascending, int64. They are the integers with at most `order` ones in binary. Those below 2^(p+1) follow from those
    below 2^p: they are the same integers, and 2^p plus each integer with one 1 fewer. Only 2^num_powers is a special
    case: it is twice the largest power. In units of 2^-b the sums do not depend on the paper's b and on the range of
    the weights separately, so that one cache serves many rounds.
    """
    sums = [np.zeros(1, dtype=np.int64)] * (order + 1)
    for power in range(num_powers):
        with_one_more = [np.concatenate([sums[ones], sums[ones - 1] + 2**power]) for ones in range(1, order + 1)]
        sums = [sums[0], *with_one_more]
    if num_powers == 0 or order == 1:
        return sums[order]
    return np.append(sums[order], 2**num_powers)
