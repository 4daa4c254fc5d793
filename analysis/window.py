"""Which ranges the axes of a figure show, and where their ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.front import Objectives, front
from analysis.metrics import Array, metric, scaled
from analysis.published import published
from analysis.series import Series

WINDOWS = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Ranges of accuracy, below the best, that an axis may show; the smallest is taken that shows enough of the trials."""
SHOWN_FRONT = 0.8
"""Share of the front that the axis must show; the rest is marked at its lower edge."""
SHOWN_TRIALS = 0.35
"""Share of all trials that the axis must show; ruined networks may lie below it."""


@dataclass(frozen=True)
class Span:
    """The metric that an axis shows, and the range from `low` to `high` in the metric's unit."""

    name: str
    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where along the axis a value lies: 0 at its beginning, 1 at its end."""
        low, at, high = scaled(self.name, np.array([self.low, value, self.high]))
        return float((at - low) / (high - low))


def axis_names(objectives: Objectives) -> tuple[str, str]:
    """Return the metrics of the horizontal and the vertical axis: the first minimised and the first maximised one."""
    minimised = [name for name, direction in objectives.items() if direction == "minimize"]
    maximised = [name for name, direction in objectives.items() if direction == "maximize"]
    return (minimised or ["unique_values"])[0], (maximised or ["val_top1"])[0]


def spans(panel: str, series: Sequence[Series]) -> tuple[Span, Span]:
    """Return the spans of both axes for the series of one model and data set, and for what others published on it."""
    x, y = axis_names(series[0].objectives)
    trials = pd.concat([one.points for one in series])
    members = pd.concat([front(one.points, one.objectives) for one in series])
    trials = trials[trials[x].notna() & trials[y].notna()]
    others = comparable(panel, x, y)
    others = others[:0] if trials.empty else others
    marks = pd.concat([trials["float_val_top1"], trials["float_test_top1"], members["test_top1"], others["test_top1"]])
    marks = marks if y == "val_top1" else marks[:0]
    counts = pd.concat([trials[x], others[x]])
    accuracies = (trials[y], members[y], marks)
    return count_span(x, counts.to_numpy(float)), accuracy_span(y, *(each.to_numpy(float) for each in accuracies))


def comparable(panel: str, x: str, y: str) -> pd.DataFrame:
    """Select the published rows that can be drawn on axes for the metrics `x` and `y`."""
    rows = published(panel)
    rows = (rows if x in rows else rows.assign(**{x: np.nan})).dropna(subset=[x, "test_top1"])
    return rows if y == "val_top1" else rows[:0]


def count_span(name: str, values: Array) -> Span:
    """Return the span of a horizontal axis: all values with a margin, or a default if there are none."""
    log2 = metric(name).log2
    placed = scaled(name, values)
    placed = placed[np.isfinite(placed)]
    if len(placed) == 0:
        return Span(name, 2, 256) if log2 else Span(name, 0, 1)
    margin = 0.05 * max(float(np.ptp(placed)), 1.0) + 0.05
    low, high = float(placed.min()) - margin, float(placed.max()) + margin
    return Span(name, 2**low, 2**high) if log2 else Span(name, low, high)


def accuracy_span(name: str, values: Array, members: Array, marks: Array) -> Span:
    """Return the span of a vertical axis.

    Args:
        name: The metric. Only fractions are cut off at the lower end.
        values: Of all trials, `(num_trials,)`.
        members: Of those on the front.
        marks: What else should be shown if it lies in the range: the float network, test accuracies.
    """
    values, members, marks = (array[np.isfinite(array)] for array in (values, members, marks))
    drawn = np.concatenate([values, marks])
    if len(drawn) == 0:
        return Span(name, 0, 1)
    high = float(drawn.max())
    low = float(drawn.min())
    if metric(name).high == 1 and len(values):
        low = max(low, high - next(span for span in WINDOWS if _shows(high - span, values, members)))
    return padded(name, low, high)


def padded(name: str, low: float, high: float) -> Span:
    """Return a span from `low` to `high` with a margin on both sides."""
    margin = 0.07 * (high - low) or 0.01
    return Span(name, low - margin, high + margin)


def log_ticks(span: Span) -> list[float]:
    """Return the ticks of a log2 axis: powers of two and, if these are fewer than four, whole numbers between them."""
    exponents = range(math.floor(math.log2(span.low)), math.ceil(math.log2(span.high)) + 1)
    ticks: list[float] = []
    for parts in (1, 2, 4, 8):
        steps = [2.0**exponent * (1 + part / parts) for exponent in exponents for part in range(parts)]
        ticks = [tick for tick in steps if span.low <= tick <= span.high and tick == int(tick)]
        if len(ticks) >= 4:
            break
    return ticks[:: max(math.ceil(len(ticks) / 12), 1)]


def _shows(low: float, values: Array, members: Array) -> bool:
    """Whether an axis from `low` up shows enough; the widest always does, because accuracies are at least 0."""
    low -= 1e-9
    front_share = float(np.mean(members >= low)) if len(members) else 1.0
    return front_share >= SHOWN_FRONT and float(np.mean(values >= low)) >= SHOWN_TRIALS
