"""The one list of what is measured of a compressed network: names, units, ranges, words and directions.

Schema columns, objectives, constraints, pruning, tables, axes and the dashboard follow from it. To add a metric, add an
entry here and its computation: in `pwfn.codebook.CodebookMetrics` if it follows from the codebook, else where a trial
is measured (`pwfn.trial.run`). This module imports nothing, so that a report on a laptop can read it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Unit = Literal[
    "fraction", "values", "bits per weight", "powers of two", "mean powers of two", "bytes", "ratio", "seconds",
    "GPU seconds",
]  # fmt: skip
"""What a number counts. Values, bytes and whole powers of two are whole numbers; all others are real."""

Bound = Literal["min", "max", "max_drop"]
"""A constraint's kind: at least, at most, or at most so far below the float network."""

WHOLE: tuple[Unit, ...] = ("values", "powers of two", "bytes")
LOW_COVERAGE = 0.95
"""Below this share of the parameters, a count of values says little about the network, and that is said."""
MOST_VALUES = 4096.0
"""Upper end of the range of value counts for the hypervolume: 12 bits per index. More values than that are not few."""


@dataclass(frozen=True)
class Metric:
    """One number that is recorded of every trial."""

    name: str
    """Name of its column."""
    unit: Unit
    label: str
    """Its name on axes and in tables."""
    description: str
    """One sentence, stored with the column."""
    direction: Direction
    """Which way is better."""
    low: float | None = None
    """Lower end of the range of which the hypervolume is a share."""
    high: float | None = None
    """Upper end of that range. Where an end is None, the range is that of the trials at hand."""
    log2: bool = False
    """Whether distances count in factors of two: from 16 values to 8 saves a bit per weight, as from 512 to 256."""
    known: Literal["round", "end"] = "round"
    """Whether every round has it, or only a trial that has ended."""
    is_searchable: bool = True
    """Whether a search may optimise or constrain it: neither test accuracies nor costs."""
    has_float: bool = False
    """Whether it is recorded of the float network too, as `float_NAME`."""
    foretold_by: str | None = None
    """The metric that tells, after a few rounds, more about this one's final value than it does itself. The weights
    that are fixed first are the easy ones: their entropy says more about the final count than their own count does."""
    heading: str | None = None
    """Heading of its column in the table of a front; None leaves it out of that table."""
    is_axis: bool = False
    """Whether the report offers it as an axis besides the objectives."""


def _fraction(name: str, label: str, description: str, **more: bool | str) -> Metric:
    return Metric(name, "fraction", label, description, "maximize", 0, 1, **more)  # type: ignore[arg-type]


_ALL = (
    _fraction("val_top1", "validation top-1", "Top-1 validation accuracy with shared values.", has_float=True,
              heading="validation"),
    _fraction("val_top5", "validation top-5", "Top-5 validation accuracy with shared values."),
    _fraction("test_top1", "test top-1", "Top-1 test accuracy with shared values.", known="end", is_searchable=False,
              has_float=True, heading="test"),
    _fraction("test_top5", "test top-5", "Top-5 test accuracy with shared values.", known="end", is_searchable=False),
    Metric("unique_values", "values", "distinct weight values",
           "Distinct values of the compressed weights, zero included.", "minimize", 1, MOST_VALUES, log2=True,
           foretold_by="entropy_bits", heading="values", is_axis=True),
    Metric("unique_nonzero", "values", "distinct non-zero values",
           "Distinct values of the compressed weights, zero left out.", "minimize", 1, MOST_VALUES, log2=True,
           foretold_by="entropy_nonzero_bits"),
    Metric("entropy_bits", "bits per weight", "entropy (bits per weight)",
           "Shannon entropy of the compressed weights' values, zero included.", "minimize", 0, 12, heading="entropy",
           is_axis=True),
    Metric("entropy_nonzero_bits", "bits per weight", "entropy without zeros (bits per weight)",
           "Shannon entropy of the compressed weights' values that are not zero.", "minimize", 0, 12),
    Metric("mean_order", "mean powers of two", "mean order (powers of two per weight)",
           "Mean over the compressed weights of the powers of two that sum to the value.", "minimize", 0, 24,
           heading="order", is_axis=True),
    Metric("max_order", "powers of two", "highest order (powers of two)", "Most powers of two in one value.",
           "minimize", 0, 24),
    _fraction("sparsity", "zeros", "Share of the compressed weights that are zero.", heading="zeros", is_axis=True),
    _fraction("coverage", "compressed share of the parameters", "Share of the network's parameters that is compressed.",
              known="end", is_searchable=False, heading="covered"),
    Metric("size_bytes", "bytes", "coded size", "Size of the exported file: codebook, coded weights, the rest, names.",
           "minimize", log2=True, known="end", heading="size", is_axis=True),
    Metric("compression_ratio", "ratio", "compression", "Bytes of all parameters as float32 over size_bytes.",
           "maximize", log2=True, known="end", is_searchable=False, heading="smaller"),
    Metric("wall_seconds", "seconds", "elapsed seconds", "Elapsed time of the trial, lost work left out.",
           "minimize", log2=True, known="end", is_searchable=False),
    Metric("gpu_seconds", "GPU seconds", "GPU seconds",
           "GPUs held times the time they were held, lost work included.", "minimize", log2=True, known="end",
           is_searchable=False),
)  # fmt: skip
"""A significand of float32 has 24 bits, hence no value has a higher order."""

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""All of them, by name, in the order of columns and tables."""


def share_missed(kind: Bound, bound: float, value: float, of_float: float = 0.0) -> float:
    """Say by what share of a bound a value misses it: at most 0 where the bound holds.

    Shares, so that what is missed of an accuracy and of a count can be added. Of a bound at 0 it is the difference. In
    floating point 0.775 - 0.075 is a little more than 0.7; nine digits are kept, so that 0.7 is within 0.075 of 0.775.

    Args:
        kind: of the bound.
        bound: the limit itself; for `max_drop`, how far below the float network's value the limit lies.
        value: of the metric.
        of_float: the float network's value, for `max_drop`.
    """
    limit = of_float - bound if kind == "max_drop" else bound
    missed = round(value - limit if kind == "max" else limit - value, 9)
    return missed / (abs(limit) or 1.0)
