"""The result as a figure: the test accuracy of the points that were chosen on validation, with their seeds.

A front is chosen on validation images. Pretrained float networks were usually trained on these images too, and then
only this figure shows how much accuracy compression really loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figure import FLOAT_LINES, INK, STYLE, lay_out, look_of, set_axes, size_of
from analysis.front import front
from analysis.metrics import Array, metric, show
from analysis.series import Series
from analysis.window import WINDOWS, Span, axis_names, count_span, padded

TEST, FLOAT = "test_top1", "float_test_top1"
SHOWN = 0.9
"""Least share of the points that the figure shows; ruined networks are counted, or the rest were illegible."""


def draw_outcome(series: Sequence[Series], title: str, subtitle: str) -> Figure | None:
    """Draw the fronts of one model and data set at their test accuracies; None if no test accuracy is recorded."""
    x_name, y_name = axis_names(series[0].objectives)
    members = [front(one.points, one.objectives).dropna(subset=[TEST, x_name]) for one in series]
    everything = pd.concat(members)
    if y_name != "val_top1" or everything.empty:
        return None
    floats = np.unique(everything[FLOAT].dropna().to_numpy(float))
    x = count_span(x_name, everything[x_name].to_numpy(float))
    y = _test_span(np.concatenate([everything[TEST], everything[f"{TEST}_low"], floats]).astype(float))
    handles = [_float_handle(floats), *(_handle(index, one) for index, one in enumerate(series))]
    footnote = "Points are the members of each front on the validation images; bars: lowest and highest seed."
    if below := int((everything[TEST] < y.low).sum()):
        footnote += f" Not shown: {below} below {show(TEST, y.low)}."
    heading = f"{title}: test accuracy against {metric(x_name).label}"
    with rc_context(STYLE):
        figure, axes = lay_out(heading, subtitle, [footnote], handles)
        set_axes(axes, x, y)
        for value in floats:
            axes.axhline(value, color=INK, linewidth=1.1, linestyle=FLOAT_LINES[FLOAT], zorder=2)
        for index, points in enumerate(members):
            _draw_members(axes, points.sort_values(x_name), x, index)
    return figure


def _test_span(accuracies: Array) -> Span:
    high = float(accuracies.max())
    window = next(span for span in WINDOWS if np.mean(accuracies >= high - span) >= SHOWN)
    low = max(float(accuracies.min()), high - window)
    return padded(TEST, low, high)


def _draw_members(axes: Axes, points: pd.DataFrame, x: Span, index: int) -> None:
    count, accuracy = points[x.name].to_numpy(float), points[TEST].to_numpy(float)
    bars = np.abs(points[[f"{TEST}_low", f"{TEST}_high"]].to_numpy(float) - accuracy[:, None]).T
    axes.errorbar(count, accuracy, yerr=bars, **_look(index), elinewidth=1.0, capsize=2.5, zorder=4)


def _float_handle(floats: Array) -> Line2D:
    values = " and ".join(dict.fromkeys(show(TEST, value) for value in floats))
    return Line2D([], [], color=INK, linewidth=1.1, linestyle=FLOAT_LINES[FLOAT], label=f"float network ({values})")


def _handle(index: int, one: Series) -> Line2D:
    return Line2D([], [], **_look(index), label=one.short)


def _look(index: int) -> dict[str, Any]:
    return {**look_of(index), "markersize": 7 * size_of(index), "markeredgecolor": "white", "linewidth": 1.4}
