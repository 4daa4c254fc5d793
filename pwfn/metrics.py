"""The list of all metrics of a compressed network: names, units, ranges, labels and directions.

Columns, objectives, constraints, pruning, tables, axes and the dashboard follow from this list. To add a metric, add an
entry here and its computation: in `pwfn.codebook.CodebookMetrics` if it follows from the codebook, else where a trial
is measured (`pwfn.trial.run`). This module imports nothing of ours, so that a report can use it on a laptop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Unit = Literal[
    "fraction", "values", "bits per weight", "powers of two", "mean powers of two", "bytes", "ratio", "seconds",
    "GPU seconds",
]  # fmt: skip
"""Unit of a metric. Metrics in values, powers of two or bytes are whole numbers; all others are real."""

Bound = Literal["min", "max", "max_drop"]
"""Kind of a constraint: at least, at most, or at most that much below the float network."""

WHOLE: tuple[Unit, ...] = ("values", "powers of two", "bytes")
"""Units of whole numbers."""
LOW_COVERAGE = 0.95
"""If less than this share of the parameters is compressed, reports say that the number of values tells little."""
MOST_VALUES = 4096.0
"""Upper end of the range of the number of values for the hypervolume; so many values need 12 bits per index."""


@dataclass(frozen=True)
class Metric:
    """One number that is recorded of every trial."""

    name: str
    """Name of the metric and of its column."""
    unit: Unit
    label: str
    """Name for readers, on axes and in tables."""
    description: str
    """One sentence, which is stored with the column."""
    direction: Direction
    """Whether larger or smaller values are better."""
    low: float | None = None
    """Lower end of the range for the hypervolume, which is given as a share of the whole range."""
    high: float | None = None
    """Upper end of that range. If an end is None, it comes from the trials of the study."""
    log2: bool = False
    """Whether distances count on a log2 scale: from 16 values to 8 saves one bit per weight, as from 512 to 256."""
    known: Literal["round", "end"] = "round"
    """Whether it is known after every round, or only when a trial has ended."""
    is_searchable: bool = True
    """Whether a search may optimise or constrain it. Test accuracies and costs are not searchable."""
    has_float: bool = False
    """Whether it is also recorded for the float network, as `float_NAME`."""
    predicted_by: str | None = None
    """A metric whose value after a few rounds predicts the final value of this one better than its own value does: the
    weights that are fixed first need few values, so that their entropy predicts the final number of values better."""
    heading: str | None = None
    """Heading of its column in the table of a front; None: it is not in that table."""
    is_axis: bool = False
    """Whether the report offers it as an axis, in addition to the objectives."""


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
           predicted_by="entropy_bits", heading="values", is_axis=True),
    Metric("unique_nonzero", "values", "distinct non-zero values",
           "Distinct values of the compressed weights, zero left out.", "minimize", 1, MOST_VALUES, log2=True,
           predicted_by="entropy_nonzero_bits"),
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
"""All metrics. Orders are at most 24, because a float32 significand has 24 bits."""

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""All metrics by name, in the order of columns and tables."""


def share_missed(kind: Bound, bound: float, value: float, of_float: float = 0.0) -> float:
    """Return by how much a value violates a bound, as a share of the limit; at most 0 if the bound holds.

    It is a share so that violations of an accuracy and of a number of values can be added. If the limit is 0, it is the
    difference itself. The difference is rounded to nine digits: in floating point 0.775 - 0.075 is a little more than
    0.7, but a value of 0.7 must be allowed if it may be 0.075 below 0.775.

    Args:
        kind: of the bound.
        bound: the limit; for `max_drop` how far the limit is below the float network's value.
        value: of the metric.
        of_float: the float network's value, for `max_drop`.
    """
    limit = of_float - bound if kind == "max_drop" else bound
    missed = round(value - limit if kind == "max" else limit - value, 9)
    return missed / (abs(limit) or 1.0)
