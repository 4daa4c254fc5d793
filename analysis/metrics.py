"""How the report shows the recorded metrics: their scale, and their values with a unit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pwfn.metrics import METRICS, Metric

Array = npt.NDArray[np.float64]

SPREAD = tuple(name for name, metric in METRICS.items() if not name.endswith("_seconds"))
"""Metrics whose lowest and highest seed are kept: `NAME_low` and `NAME_high`."""


def metric(name: str) -> Metric:
    """Look up a metric; one that is not known is shown by its column's name on a plain scale."""
    return METRICS.get(name) or Metric(name, "ratio", name, "", "minimize")


def scaled(name: str, values: Array) -> Array:
    """Place values on a metric's scale; what has no place there (zero on a log scale) becomes NaN."""
    if not metric(name).log2:
        return values
    positive = np.where(values > 0, values, np.nan)
    return np.asarray(np.log2(positive), dtype=np.float64)


def show(name: str, value: float) -> str:
    """Write a metric's value with its unit, for a reader."""
    return _SHOW[metric(name).unit](value) if name in METRICS else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _whole(value: float) -> str:
    """Write a count; a mean over seeds is rounded, since no network has a part of a value."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if value >= 10_000 else f"{value:.0f}"


def _kilobytes(value: float) -> str:
    return f"{value / 1000:.1f} kB" if value < 1e6 else f"{value / 1e6:.2f} MB"


_SHOW: dict[str, Callable[[float], str]] = {
    "fraction": _percent,
    "values": _whole,
    "bits per weight": "{:.2f}".format,
    "powers of two": _whole,
    "mean powers of two": "{:.2f}".format,
    "bytes": _kilobytes,
    "ratio": "{:.1f}\N{MULTIPLICATION SIGN}".format,
    "seconds": "{:.0f} s".format,
    "GPU seconds": "{:.0f} s".format,
}
