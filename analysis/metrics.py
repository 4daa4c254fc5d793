"""What the report knows about each recorded metric: its words, its scale, and the span in which it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One recorded number of a trial."""

    label: str
    """Name in tables and on axes."""
    low: float | None = None
    """Lower end of the span that hypervolume is a share of."""
    high: float | None = None
    """Upper end of that span; where one end is None, the span is that of the values seen."""
    log2: bool = False
    """Distances count in factors of two: from 16 values to 8 saves a bit per weight, as does 512 to 256."""
    show: Callable[[float], str] = "{:.4g}".format
    """The value with its unit, for a reader."""

    def scaled(self, values: Array) -> Array:
        """Place values on the metric's scale; what has no place (zero on a log scale) becomes NaN."""
        if not self.log2:
            return values
        positive = np.where(values > 0, values, np.nan)
        return np.asarray(np.log2(positive), dtype=np.float64)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _whole(value: float) -> str:
    return (
        f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        if value >= 10_000
        else f"{value:.1f}".removesuffix(".0")
    )


def _kilobytes(value: float) -> str:
    return f"{value / 1000:.1f} kB" if value < 1e6 else f"{value / 1e6:.2f} MB"


MOST_VALUES = 4096.0
"""Where the span of value counts ends: 12 bits per index. More is not few, and earns no hypervolume."""

METRICS = {
    "val_top1": Metric("validation top-1", 0, 1, show=_percent),
    "val_top5": Metric("validation top-5", 0, 1, show=_percent),
    "test_top1": Metric("test top-1", 0, 1, show=_percent),
    "test_top5": Metric("test top-5", 0, 1, show=_percent),
    "unique_values": Metric("distinct weight values", 1, MOST_VALUES, log2=True, show=_whole),
    "unique_nonzero": Metric("distinct non-zero values", 1, MOST_VALUES, log2=True, show=_whole),
    "entropy_bits": Metric("entropy (bits per weight)", 0, 12, show="{:.2f}".format),
    "entropy_nonzero_bits": Metric("entropy without zeros (bits per weight)", 0, 12, show="{:.2f}".format),
    "sparsity": Metric("zeros", 0, 1, show=_percent),
    "coverage": Metric("compressed share of the parameters", 0, 1, show=_percent),
    "mean_order": Metric("mean order (powers of two per weight)", 0, 24, show="{:.2f}".format),
    "max_order": Metric("highest order (powers of two)", 0, 24, show=_whole),
    "size_bytes": Metric("coded size", log2=True, show=_kilobytes),
    "compression_ratio": Metric("compression", log2=True, show="{:.1f}\N{MULTIPLICATION SIGN}".format),
    "wall_seconds": Metric("elapsed seconds", log2=True, show="{:.0f} s".format),
    "gpu_seconds": Metric("GPU seconds", log2=True, show="{:.0f} s".format),
}
"""A significand of float32 has 24 bits, hence no value has a higher order."""


def metric(name: str) -> Metric:
    """Look up a metric; one that is not known is shown by its column's name on a plain scale."""
    return METRICS.get(name, Metric(name))
