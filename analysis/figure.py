"""The front as a figure: distinct values against accuracy, every trial behind it.

The shape of a marker says what a point is, so the figure can be read without colour. Complete trials are dots,
infeasible ones tripods, pruned ones hollow triangles, failed ones crosses. Front members are large and filled, and the
hollow marker that is joined to each is its test accuracy.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.front import front, on_front
from analysis.looks import DASHES, LIGHT, MARKERS, SIZES
from analysis.metrics import metric, show
from analysis.seeds import replicated
from analysis.series import Series
from analysis.window import Span, comparable, log_ticks, spans

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#24292f",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": "#24292f",
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "pwfn",
}
GREY = "#9aa1ab"
INK = "#24292f"
FLOAT_LINES: dict[str, Any] = {"float_val_top1": "-", "float_test_top1": (0, (2, 2))}
STATES: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "markersize": 4, "markeredgewidth": 0},
    "infeasible": {"marker": "1", "markersize": 6, "markeredgewidth": 1.0},
    "pruned": {"marker": "v", "markersize": 4.5, "markeredgewidth": 0.9, "markerfacecolor": "none"},
    "failed": {"marker": "x", "markersize": 4.7, "markeredgewidth": 1.1},
}
BELOW: dict[str, Any] = {"marker": r"$\downarrow$", "markersize": 7, "markeredgewidth": 0}
PUBLISHED: dict[str, Any] = {"marker": "*", "markersize": 7, "markerfacecolor": "white", "markeredgecolor": INK}
DOTS_PER_INCH = 200
WIDTH, AXES_HEIGHT = 8.6, 3.5
"""Inches."""
LEGEND_COLUMNS = 4
FOOTNOTE_CHARACTERS = 185


def draw(series: Sequence[Series], title: str, subtitle: str, footnote: str) -> Figure:
    """Draw the studies of one model and data set into one figure; if there is no result yet, the figure says so."""
    x, y = spans(title, series)
    empty = not np.isfinite(pd.concat([one.points[y.name] for one in series])).any()
    others = comparable(title, x.name, y.name)
    handles = [*_float_handles(series, y), *_state_handles(series, x, y), *_front_handles(series, y)]
    if len(others):
        handles.append(Line2D([], [], linestyle="", label="published by others, test", **PUBLISHED))
    heading = f"{title}: {'accuracy' if y.name == 'val_top1' else metric(y.name).label} against {metric(x.name).label}"
    with rc_context(STYLE):
        figure, axes = lay_out(
            heading, subtitle, textwrap.wrap(footnote, FOOTNOTE_CHARACTERS), [] if empty else handles
        )
        set_axes(axes, x, y)
        _draw_float_lines(axes, series, y)
        for index, one in enumerate(series):
            look = look_of(index)
            colour = look["color"]
            behind = GREY if len(series) == 1 else colour
            _draw_trials(axes, one, x, y, behind)
            _draw_front(axes, one, x, y, size_of(index), **look)
            _draw_seeds(axes, one, x, y, colour)
            _draw_below(axes, one, x, y, (behind, colour))
        _draw_answer(axes, series, x, y)
        if not empty:
            _draw_published(axes, others, x)
        else:
            axes.text(0.5, 0.5, "no trial has a result yet", transform=axes.transAxes, ha="center", color="#57606a")
    return figure


def encode(figure: Figure, kind: str) -> bytes:
    """Encode a figure as `png` or `svg`; equal figures give equal bytes."""
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context(STYLE):
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return content.getvalue()


def look_of(index: int) -> dict[str, Any]:
    """Return colour, marker and line style of a series, by its place among all series."""
    dashes = list(DASHES.values())
    return {
        "color": LIGHT[index % len(LIGHT)],
        "marker": MARKERS[_marker_of(index)],
        "linestyle": dashes[index % len(dashes)],
    }


def size_of(index: int) -> float:
    """Return the factor by which the marker of a series is drawn larger than others."""
    return SIZES.get(_marker_of(index), 1.0)


def _marker_of(index: int) -> str:
    """Return the marker's name: from the thirteenth series on colours meet other markers than before."""
    return list(MARKERS)[(index + index // len(MARKERS)) % len(MARKERS)]


def set_axes(axes: Axes, x: Span, y: Span) -> None:
    """Set the spans, labels and ticks of the axes."""
    axes.set_axisbelow(True)
    axes.grid(visible=True)
    axes.set_ylim(y.low, y.high)
    axes.set_xlabel(metric(x.name).label + (" (log scale)" if metric(x.name).log2 else ""))
    axes.set_ylabel("top-1 accuracy" if y.name == "val_top1" else metric(y.name).label)
    if metric(y.name).high == 1:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    if metric(x.name).log2:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(log_ticks(x)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(x.name, value)))
    axes.set_xlim(x.low, x.high)
    axes.tick_params(length=0, pad=6)


def _draw_float_lines(axes: Axes, series: Sequence[Series], y: Span) -> None:
    """Draw horizontal lines at the accuracies of the float network from which the trials started."""
    for name, style in FLOAT_LINES.items() if y.name == "val_top1" else ():
        for value in _float_accuracies(series, name):
            axes.axhline(value, color=INK, linewidth=1.1, linestyle=style, zorder=2)


def _float_accuracies(series: Sequence[Series], name: str) -> list[float]:
    return sorted(pd.concat([one.trials[name] for one in series]).dropna().unique().tolist())


def _draw_trials(axes: Axes, one: Series, x: Span, y: Span, colour: str) -> None:
    """Draw every trial above the lower edge that is not on the front, with the marker of its state."""
    trials = one.points[~on_front(one.points, one.objectives) & (one.points[y.name] >= y.low)]
    for state, style in STATES.items():
        chosen = trials[trials["state"] == state]
        line = style | ({"markerfacecolor": colour} if state == "complete" else {})
        axes.plot(chosen[x.name], chosen[y.name], linestyle="", markeredgecolor=colour, zorder=3, **line)


def _draw_below(axes: Axes, one: Series, x: Span, y: Span, colours: tuple[str, str]) -> None:
    """Draw arrows at the lower edge for points below it; `colours` are those of dominated trials and of the front."""
    below = one.points[y.name] < y.low
    members = on_front(one.points, one.objectives)
    for mask, colour in zip((below & ~members, below & members), colours, strict=True):
        at = np.full(int(mask.sum()), y.low + 0.022 * (y.high - y.low))
        axes.plot(one.points.loc[mask, x.name], at, linestyle="", color=colour, zorder=5, **BELOW)


def _draw_front(
    axes: Axes, one: Series, x: Span, y: Span, size: float, color: str, marker: Any, linestyle: Any
) -> None:
    """Draw the front as a step line, its members on the line, and what each reaches on the test images."""
    members = front(one.points, one.objectives).sort_values(x.name)
    if members.empty:
        return
    if set(one.objectives) == {x.name, y.name}:
        steps = [*members[x.name], x.high]
        axes.step(
            steps, [*members[y.name], members[y.name].iloc[-1]], where="post", color=color, linewidth=1.8,
            linestyle=linestyle, zorder=4,
        )  # fmt: skip
    axes.scatter(
        members[x.name], members[y.name], marker=marker, s=52 * size**2, color=color, edgecolors="white",
        linewidths=1.0, zorder=6,
    )  # fmt: skip
    if y.name == "val_top1" and members["test_top1"].notna().any():
        axes.vlines(members[x.name], members[y.name], members["test_top1"], color=color, linewidth=0.8, zorder=4)
        axes.scatter(
            members[x.name], members["test_top1"], marker=marker, s=30 * size**2, facecolors="white", edgecolors=color,
            linewidths=1.2, zorder=5,
        )  # fmt: skip


def _draw_seeds(axes: Axes, one: Series, x: Span, y: Span, colour: str) -> None:
    """Draw bars from the lowest to the highest seed of each configuration that has several seeds."""
    several = replicated(one.points)
    if several.empty or f"{x.name}_low" not in several or f"{y.name}_low" not in several:
        return
    bars = [
        np.abs(several[[f"{name}_low", f"{name}_high"]].to_numpy(float) - several[[name]].to_numpy(float)).T
        for name in (x.name, y.name)
    ]
    axes.errorbar(
        several[x.name], several[y.name], xerr=bars[0], yerr=bars[1], fmt="none", ecolor=colour, elinewidth=1.0,
        capsize=2.5, zorder=5,
    )  # fmt: skip


def _draw_answer(axes: Axes, series: Sequence[Series], x: Span, y: Span) -> None:
    """Write the smallest count within one point of the float network's validation accuracy, beside a line at it."""
    found = list(_answers(series)) if (x.name, y.name) == ("unique_values", "val_top1") else []
    if not found:
        return
    best = min(found, key=lambda row: (row["unique_values"], -row["val_top1"]))
    count, loss = best["unique_values"], 100 * (best["float_val_top1"] - best["val_top1"])
    change = f"{abs(loss):.1f} points {'below' if loss > 0 else 'above'} float"
    test = "" if pd.isna(best["test_top1"]) else f", test {100 * best['test_top1']:.1f} %"
    name = f"{best['short']}, " if len(series) > 1 else ""
    axes.vlines(count, y.low, best["val_top1"], color=INK, linewidth=1.0, linestyle=(0, (1, 2)), zorder=4)
    left = x.place(count) > 0.6
    axes.annotate(
        f"{name}{count:.0f} values: {change}\nvalidation {100 * best['val_top1']:.1f} %{test}",
        (x.place(count), 0.1), xycoords="axes fraction", xytext=(-7 if left else 7, 0), textcoords="offset points",
        ha="right" if left else "left", va="bottom", fontsize=9.5, fontweight="bold", linespacing=1.4, zorder=7,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip


def _draw_published(axes: Axes, rows: pd.DataFrame, x: Span) -> None:
    """Draw what others have published for this model and data set, each with its label."""
    axes.plot(rows[x.name], rows["test_top1"], linestyle="", zorder=5, **PUBLISHED)
    for count, accuracy, label in zip(rows[x.name], rows["test_top1"], rows["label"], strict=True):
        axes.annotate(
            label, (count, accuracy), xytext=(-6, 0), textcoords="offset points", ha="right", va="center",
            fontsize=6.5, color="#57606a", bbox={"pad": 0.5, "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
        )  # fmt: skip


def _answers(series: Sequence[Series]) -> Iterator[pd.Series[Any]]:
    for one in series:
        members = front(one.points, one.objectives)
        close = members[members["val_top1"] >= members["float_val_top1"] - 0.01]
        if len(close):
            best = close.sort_values("unique_values").iloc[0].copy()
            best["short"] = one.short
            yield best


def lay_out(title: str, subtitle: str, footnote: list[str], handles: list[Line2D]) -> tuple[Figure, Axes]:
    """Place title and subtitle above the axes, legend and footnote below; the axes keep their size in inches."""
    rows = math.ceil(len(handles) / LEGEND_COLUMNS)
    legend_top = 0.14 + 0.115 * len(footnote) + 0.2 * rows
    bottom = legend_top + 0.55
    height = bottom + AXES_HEIGHT + 0.82
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0.02, 1 - 0.26 / height, title, fontsize=14, fontweight="bold", va="center")
    figure.text(0.02, 1 - 0.54 / height, subtitle, fontsize=9.5, color="#57606a", va="center")
    figure.text(0.02, 0.07 / height, "\n".join(footnote), fontsize=6.5, color="#6e7781", va="bottom")
    if handles:
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.012, legend_top / height), ncols=LEGEND_COLUMNS,
            frameon=False, fontsize=8.5, handletextpad=0.5, columnspacing=1.6, borderpad=0,
        )  # fmt: skip
    return figure, figure.add_axes((0.112, bottom / height, 0.863, AXES_HEIGHT / height))


def _float_handles(series: Sequence[Series], y: Span) -> Iterator[Line2D]:
    for name, style in FLOAT_LINES.items() if y.name == "val_top1" else ():
        shown = dict.fromkeys(f"{100 * value:.1f} %" for value in _float_accuracies(series, name))
        values = " and ".join(shown)
        if values:
            images = "validation" if name == "float_val_top1" else "test"
            yield Line2D([], [], color=INK, linewidth=1.1, linestyle=style, label=f"float network, {images} ({values})")


def _state_handles(series: Sequence[Series], x: Span, y: Span) -> Iterator[Line2D]:
    """Make a legend entry for each state: how many trials have it, and how many of these have no result to draw."""
    behind = pd.concat([one.points[~on_front(one.points, one.objectives)] for one in series])
    for state, style in STATES.items():
        chosen = behind[behind["state"] == state]
        missing = int((chosen[x.name].isna() | chosen[y.name].isna()).sum())
        absent = f", {missing if missing < len(chosen) else ''} without a result".replace("  ", " ") if missing else ""
        label = f"{state}{', dominated' if state == 'complete' else ''} ({len(chosen)}{absent})"
        line = style | ({"markerfacecolor": GREY} if state == "complete" else {})
        if len(chosen):
            yield Line2D([], [], linestyle="", markeredgecolor=GREY, label=label, **line)
    below = int(sum((one.points[y.name] < y.low).sum() for one in series))
    if below:
        yield Line2D([], [], linestyle="", color=GREY, label=f"below {100 * y.low:.1f} % ({below})", **BELOW)


def _front_handles(series: Sequence[Series], y: Span) -> Iterator[Line2D]:
    for index, one in enumerate(series):
        look = {**look_of(index), "linewidth": 1.8}
        label = f"front, {metric(y.name).label}" if len(series) == 1 else f"front of {one.short}"
        yield Line2D([], [], markersize=7 * size_of(index), markeredgecolor="white", label=label, **look)
    if y.name == "val_top1":
        colour = LIGHT[0] if len(series) == 1 else GREY
        yield Line2D([], [], linestyle="", marker="o", markersize=5.5, markerfacecolor="white", markeredgecolor=colour,
                     markeredgewidth=1.2, label="front, test top-1")  # fmt: skip
