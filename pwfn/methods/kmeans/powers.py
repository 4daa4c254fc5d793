"""Rounding to the nearest sum of few powers of two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def round_to_order(values: FloatArray, max_order: int) -> FloatArray:
    """Round each float32 value `(n,)` to the nearest one with at most `max_order` ones in its binary significand.

    These are all values whose order (`pwfn.codebook.value_orders`) is at most `max_order`: PWFN's candidates, but with
    powers of two of any size. A value halfway between two goes to the one with the smaller magnitude.
    """
    rest = np.abs(values.astype(np.float64))
    power = np.zeros_like(rest)
    below = np.zeros_like(rest)
    for _ in range(max_order):
        _, exponent = np.frexp(rest)
        power = np.where(rest > 0, np.ldexp(1.0, exponent - 1), 0.0)
        below += power
        rest -= power
    # `below` has max_order ones, the last of them `power`. A larger value can have as few ones only if it is at least
    # `below` + `power`.
    rounded = np.where(rest > power - rest, below + power, below)
    return np.copysign(rounded, values).astype(np.float32)
