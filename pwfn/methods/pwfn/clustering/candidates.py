"""The values a weight may be fixed to: sums of powers of two, as integers of the lattice 2^-b (PWFN, section 3)."""

from __future__ import annotations

from functools import lru_cache
from math import frexp

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def candidates(order: int, largest: float) -> IntArray:
    """Candidates of one stage in lattice units, ascending and symmetric about the zero they contain.

    Args:
        order: R, how many powers of two are summed; at least 1.
        largest: m 2^b, the largest magnitude among the free weights; no candidate exceeds it.
    """
    positive = sums_of_powers(_num_powers(largest), order)[1:]
    positive = positive[: np.searchsorted(positive, largest, side="right")]
    return np.concatenate([-positive[::-1], np.zeros(1, dtype=np.int64), positive])


def _num_powers(largest: float) -> int:
    """How many of 1, 2, 4, ... enter the sums: all up to 2^(ceil(log2 m) - 1); log2 itself would round."""
    if largest <= 1:
        return 0
    significand, exponent = frexp(largest)
    return exponent - 1 if significand == 0.5 else exponent


@lru_cache(maxsize=64)
def sums_of_powers(num_powers: int, order: int) -> IntArray:
    """Sums of `order` elements, with repetition, of {0, 1, 2, ..., 2^(num_powers - 1)}: those up to 2^num_powers.

    Ascending. They are the integers with at most `order` ones in binary, so those below 2^(p+1) follow from those
    below 2^p: the same again, and 2^p more than those with one fewer. Only 2^num_powers itself is apart: it is twice
    the largest power. In lattice units the paper's b and range are one number, which makes the cache hit.
    """
    sums = [np.zeros(1, dtype=np.int64)] * (order + 1)
    for power in range(num_powers):
        with_one_more = [np.concatenate([sums[ones], sums[ones - 1] + 2**power]) for ones in range(1, order + 1)]
        sums = [sums[0], *with_one_more]
    if num_powers == 0 or order == 1:
        return sums[order]
    return np.append(sums[order], 2**num_powers)
