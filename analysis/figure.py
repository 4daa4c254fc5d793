"""The front as a figure: distinct values against accuracy, every trial behind it.

What a point is can be read without colour: complete trials are dots, pruned ones hollow triangles, failed ones
crosses; front members are large and filled, their test accuracy is the hollow marker joined to them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.front import Objectives, front, on_front
from analysis.metrics import Array, metric

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
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by most who are colour-blind; the marker says the same."""
MARKERS = ("o", "s", "^", "D", "P", "v")
GREY = "#9aa1ab"
INK = "#24292f"
WINDOWS = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Spans of accuracy below the best that the axis may show; the smallest that shows most of the front is taken."""
SHOWN_SHARE = 0.7
"""Share of the front, and of the complete trials half that, which must lie in the window."""
DOTS_PER_INCH = 200
WIDTH, HEIGHT = 8.6, 5.4
"""Inches."""


@dataclass(frozen=True)
class Series:
    """The trials of one study on one model and data set, with the objectives that decide its front."""

    study: str
    trials: pd.DataFrame
    objectives: Objectives


@dataclass(frozen=True)
class Span:
    """Which metric an axis shows, from where to where, in the metric's unit."""

    name: str
    low: float
    high: float


def draw(series: Sequence[Series], title: str, subtitle: str, footnote: str) -> Figure:
    """Draw the studies of one model and data set into one figure; with no trial at all it says so."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        axes = figure.add_axes((0.085, 0.2, 0.89, 0.64))
        _write_words(figure, title, subtitle, footnote)
        x, y = _spans(series)
        _set_axes(axes, x, y)
        _draw_float_lines(axes, series, y)
        for index, one in enumerate(series):
            _draw_trials(axes, one, x, y, GREY if len(series) == 1 else COLOURS[index % len(COLOURS)])
        for index, one in enumerate(series):
            label = "front" if len(series) == 1 else f"front, {one.study}"
            _draw_front(axes, one, x, y, COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], label)
        _draw_answer(axes, series, x, y)
        _draw_legend(figure, axes)
    return figure


def encode(figure: Figure, kind: str) -> bytes:
    """Encode as `png` or `svg`, the same bytes for the same figure."""
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context(STYLE):
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return content.getvalue()


def axis_names(objectives: Objectives) -> tuple[str, str]:
    """The metrics on the horizontal and the vertical axis: the first minimised and the first maximised objective."""
    minimised = [name for name, direction in objectives.items() if direction == "minimize"]
    maximised = [name for name, direction in objectives.items() if direction == "maximize"]
    return (minimised or ["unique_values"])[0], (maximised or ["val_top1"])[0]


def _spans(series: Sequence[Series]) -> tuple[Span, Span]:
    objectives = series[0].objectives
    x_name, y_name = axis_names(objectives)
    trials = pd.concat([one.trials for one in series])
    members = pd.concat([front(one.trials, objectives) for one in series])
    placed = np.isfinite(trials[x_name]) & np.isfinite(trials[y_name])
    x, y = trials.loc[placed, x_name].to_numpy(float), trials.loc[placed, y_name].to_numpy(float)
    x = x[x > 0] if metric(x_name).log2 else x
    lines = trials["float_val_top1"].dropna().to_numpy(float) if y_name == "val_top1" else np.array([])
    tests = members["test_top1"].dropna().to_numpy(float) if y_name == "val_top1" else np.array([])
    high = np.concatenate([y, lines, tests]).max(initial=0.0) or 1.0
    low = _window_low(y, members[y_name].to_numpy(float), high) if metric(y_name).high == 1 else y.min(initial=high)
    margin = (high - low) * 0.07 or 0.01
    return _x_span(x_name, x), Span(y_name, low - margin, high + margin)


def _window_low(values: Array, members: Array, high: float) -> float:
    """Where the vertical axis begins: low enough for most of the front, not for every ruined network."""
    for window in WINDOWS:
        low = high - window
        front_share = np.mean(members >= low) if len(members) else 1.0
        if front_share >= SHOWN_SHARE and (len(values) == 0 or np.mean(values >= low) >= SHOWN_SHARE / 2):
            seen = values[values >= low]
            return float(max(low, seen.min(initial=high) - 0.0)) if len(seen) == len(values) else low
    return 0.0


def _x_span(name: str, values: Array) -> Span:
    if len(values) == 0:
        return Span(name, 2, 256) if metric(name).log2 else Span(name, 0, 1)
    if not metric(name).log2:
        margin = (values.max() - values.min()) * 0.05 or 0.5
        return Span(name, values.min() - margin, values.max() + margin)
    octaves = max(math.log2(values.max() / values.min()), 1)
    factor = 2 ** (0.05 * octaves + 0.05)
    return Span(name, values.min() / factor, values.max() * factor)


def _set_axes(axes: Axes, x: Span, y: Span) -> None:
    axes.set_axisbelow(True)
    axes.grid(visible=True)
    axes.set_ylim(y.low, y.high)
    axes.set_xlabel(metric(x.name).label + (" (log scale)" if metric(x.name).log2 else ""))
    axes.set_ylabel(metric(y.name).label if metric(y.name).high != 1 else f"{metric(y.name).label} accuracy")
    if metric(y.name).high == 1:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    if metric(x.name).log2:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(_log_ticks(x)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: metric(x.name).show(value)))
    axes.set_xlim(x.low, x.high)
    axes.tick_params(length=0, pad=6)


def _log_ticks(span: Span) -> list[float]:
    """Powers of two within a span; where these are fewer than four, whole numbers between them too."""
    exponents = range(math.floor(math.log2(span.low)), math.ceil(math.log2(span.high)) + 1)
    ticks: list[float] = []
    for parts in (1, 2, 4, 8):
        steps = [2.0**exponent * (1 + part / parts) for exponent in exponents for part in range(parts)]
        ticks = [tick for tick in steps if span.low <= tick <= span.high and tick == int(tick)]
        if len(ticks) >= 4:
            break
    return ticks[:: math.ceil(len(ticks) / 12)] if ticks else []


def _draw_float_lines(axes: Axes, series: Sequence[Series], y: Span) -> None:
    """Horizontal lines for the float network that the trials started from."""
    if y.name != "val_top1":
        return
    for name, style, label in [("float_val_top1", "-", "validation"), ("float_test_top1", (0, (2, 2)), "test")]:
        values = pd.concat([one.trials[name] for one in series]).dropna().unique()
        for value in values[:1] if len(values) == 1 else values:
            text = f"float network, {label} ({100 * value:.1f} %)"
            axes.axhline(float(value), color=INK, linewidth=1.1, linestyle=style, label=text, zorder=2)


def _draw_trials(axes: Axes, one: Series, x: Span, y: Span, colour: str) -> None:
    """Every trial that is not on the front, by state; those below the window at its lower edge."""
    trials = one.trials[~on_front(one.trials, one.objectives)]
    styles = {
        "complete": {"marker": "o", "s": 16, "color": colour, "linewidths": 0},
        "pruned": {"marker": "v", "s": 20, "facecolors": "none", "edgecolors": colour, "linewidths": 0.9},
        "failed": {"marker": "x", "s": 22, "color": colour, "linewidths": 1.1},
    }
    for state, style in styles.items():
        chosen = trials[trials["state"] == state]
        if len(chosen):
            inside = chosen[chosen[y.name] >= y.low]
            axes.scatter(inside[x.name], inside[y.name], label=_state_label(one, chosen, x, y), zorder=3, **style)  # type: ignore[arg-type]
    _draw_below(axes, trials, x, y, colour)


def _state_label(one: Series, chosen: pd.DataFrame, x: Span, y: Span) -> str:
    state = str(chosen["state"].iloc[0])
    unplaced = int((chosen[x.name].isna() | chosen[y.name].isna()).sum())
    return f"{state} ({len(chosen)}{f', {unplaced} without a result' if unplaced else ''})"


def _draw_below(axes: Axes, trials: pd.DataFrame, x: Span, y: Span, colour: str) -> None:
    below = trials[(trials[y.name] < y.low) & trials[x.name].notna()]
    if len(below):
        edge = np.full(len(below), y.low)
        label = f"below {100 * y.low:.0f} % ({len(below)})"
        axes.scatter(below[x.name], edge, marker=7, s=22, color=colour, clip_on=False, label=label, zorder=3)


def _draw_front(axes: Axes, one: Series, x: Span, y: Span, colour: str, marker: str, label: str) -> None:
    """The step line that no trial is above, the members on it, and what they reach on the test images."""
    members = front(one.trials, one.objectives).sort_values(x.name)
    if members.empty:
        return
    if set(one.objectives) == {x.name, y.name}:
        steps = [*members[x.name], x.high]
        axes.step(
            steps, [*members[y.name], members[y.name].iloc[-1]], where="post", color=colour, linewidth=1.8, zorder=4
        )
    axes.scatter(
        members[x.name], members[y.name], marker=marker, s=52, color=colour, edgecolors="white", linewidths=1.0,
        label=f"{label}: {metric(y.name).label}", zorder=6,
    )  # fmt: skip
    if y.name == "val_top1" and members["test_top1"].notna().any():
        axes.vlines(members[x.name], members[y.name], members["test_top1"], color=colour, linewidth=0.8, zorder=4)
        axes.scatter(
            members[x.name], members["test_top1"], marker=marker, s=30, facecolors="white", edgecolors=colour,
            linewidths=1.2, label=f"{label}: test top-1", zorder=5,
        )  # fmt: skip


def _draw_answer(axes: Axes, series: Sequence[Series], x: Span, y: Span) -> None:
    """Say at its point the smallest count within one point of the float network's validation accuracy."""
    found = list(_answers(series)) if (x.name, y.name) == ("unique_values", "val_top1") else []
    if not found:
        return
    best = min(found, key=lambda row: (row["unique_values"], -row["val_top1"]))
    loss = 100 * (best["float_val_top1"] - best["val_top1"])
    change = f"{loss:.1f} points below float" if loss > 0 else f"{-loss:.1f} points above float"
    text = f"{best['unique_values']:.0f} values\n{100 * best['val_top1']:.1f} %, {change}"
    right = math.log2(best["unique_values"] / x.low) > 0.5 * math.log2(x.high / x.low)
    axes.annotate(
        text, (best["unique_values"], best["val_top1"]), xytext=(-26 if right else 30, -58), textcoords="offset points",
        ha="right" if right else "left", va="top", fontsize=9.5, fontweight="bold", linespacing=1.4, zorder=7,
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#d0d7de", "linewidth": 0.8},
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8, "shrinkB": 5},
    )  # fmt: skip


def _answers(series: Sequence[Series]) -> Iterator[pd.Series]:
    for one in series:
        members = front(one.trials, one.objectives)
        close = members[members["val_top1"] >= members["float_val_top1"] - 0.01]
        if len(close):
            yield close.sort_values("unique_values").iloc[0]


def _write_words(figure: Figure, title: str, subtitle: str, footnote: str) -> None:
    figure.text(0.02, 0.955, title, fontsize=14, fontweight="bold", va="center")
    figure.text(0.02, 0.905, subtitle, fontsize=9.5, color="#57606a", va="center")
    figure.text(0.02, 0.018, footnote, fontsize=7, color="#6e7781", va="bottom")


def _draw_legend(figure: Figure, axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        figure.legend(
            *axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0.012, 0.045), ncols=4, frameon=False,
            fontsize=8.5, handletextpad=0.5, columnspacing=1.6, borderpad=0,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "no trial has a result yet", transform=axes.transAxes, ha="center", color="#57606a")
