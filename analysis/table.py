"""The front as a table: for the terminal, for Markdown, for CSV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table

from analysis.front import Objectives, front
from analysis.metrics import metric, show
from analysis.series import Series
from pwfn.metrics import METRICS

MISSING = "-"
MOST_LIMITS = 6
AT_MOST_CAPTION = (
    "Test accuracy in %, mean \N{PLUS-MINUS SIGN} standard deviation over the seeds (n). Of the points with at most so "
    "many values, but more than half as many, the best on validation."
)
_HEADINGS = {name: metric.heading for name, metric in METRICS.items() if metric.heading is not None}
COLUMNS = {
    **{name: _HEADINGS.pop(name) for name in ("unique_values", "coverage", "val_top1", "test_top1")},
    "test_minus_float": "test vs float",
    **_HEADINGS,
    "trial_id": "trial",
}
"""Column of a front -> its heading: first what the question is about, then all else that a metric has a heading for."""
_KEYS = ("study", "model", "data", "method", "trial_id", "number", "seed")


def front_rows(trials: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """Select the front with the numbers that a reader compares, in their units; `test_minus_float` is a fraction."""
    members = front(trials, objectives)
    members = members.assign(test_minus_float=members["test_top1"] - members["float_test_top1"])
    numbers = dict.fromkeys([*objectives, *(name for name in COLUMNS if name != "trial_id")])
    floats = ["float_val_top1", "float_test_top1"]
    return members[[*_KEYS, "num_seeds", *numbers, *floats, "config_json"]].reset_index(drop=True)


@dataclass(frozen=True)
class Reached:
    """The point of a series that is best on validation among those with at most so many values, but more than half."""

    num_values: float
    test: float
    """Mean over seeds, a fraction."""
    deviation: float
    """Standard deviation over seeds; NaN if there is one seed."""
    num_seeds: int
    trial_id: str


def at_most(series: Sequence[Series]) -> tuple[list[int], list[list[Reached | None]]]:
    """Return limits on the number of values, powers of two, and what each series reaches on test with so many.

    At most `MOST_LIMITS` limits are chosen, those for which most series have a point.
    """
    tables = [_best_by_limit(one) for one in series]
    limits = Counter(limit for table in tables for limit in table)
    chosen = sorted(sorted(limits, key=lambda limit: (-limits[limit], limit))[:MOST_LIMITS])
    return chosen, [[table.get(limit) for limit in chosen] for table in tables]


def _best_by_limit(one: Series) -> dict[int, Reached]:
    needed = ["unique_values", "val_top1", "test_top1"]
    points = one.points[(one.points["state"] == "complete") & one.points[needed].notna().all(axis=1)]
    limits = 2 ** np.ceil(np.log2(points["unique_values"].clip(lower=2))).astype(int)
    tests = one.trials.set_index("trial_id")["test_top1"]
    found = {}
    for limit, rows in points.groupby(limits):
        best = rows.sort_values(["val_top1", "unique_values"], ascending=[False, True]).iloc[0]
        seeds = tests[list(best["trial_ids"])].dropna()
        num_values = float(best["unique_values"])
        found[int(limit)] = Reached(num_values, float(seeds.mean()), float(seeds.std()), len(seeds), best["trial_id"])
    return found


def reached_words(cell: Reached | None, limit: int) -> str:
    """Write a cell: accuracy, deviation, (seeds), as in `91.33 \N{PLUS-MINUS SIGN}0.16 (3)`; values unless `limit`."""
    if cell is None:
        return ""
    spread = "" if cell.num_seeds < 2 else f" \N{PLUS-MINUS SIGN}{100 * cell.deviation:.2f}"
    values = "" if round(cell.num_values) == limit else f", {show('unique_values', cell.num_values)} values"
    return f"{100 * cell.test:.2f}{spread} ({cell.num_seeds}{values})"


def markdown_at_most(series: Sequence[Series]) -> str:
    """Write the table of `at_most` in Markdown; empty if no point has a test accuracy."""
    limits, rows = at_most(series)
    if not limits:
        return ""
    heads = ["series", *(f"at most {limit} values" for limit in limits)]
    lines = [[one.label, *map(reached_words, row, limits)] for one, row in zip(series, rows, strict=True)]
    rules = [":---", *("---:" for _ in limits)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in [heads, rules, *lines])
    return f"{AT_MOST_CAPTION}\n\n{table}"


def markdown(rows: pd.DataFrame, objectives: Objectives) -> str:
    """Write the front as a Markdown table with numbers on the right; a sentence if it is empty."""
    if rows.empty:
        return "No trial is complete yet.\n"
    headings, lines = _cells(rows, objectives)
    rules = [":---" if heading == "trial" else "---:" for heading in headings]
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, rules, *lines])


def latex(rows: pd.DataFrame, objectives: Objectives, caption: str) -> str:
    """Write the front as a LaTeX table for the package booktabs; a comment if it is empty."""
    if rows.empty:
        return f"% {caption}: no trial is complete yet\n"
    headings, lines = _cells(rows, objectives)
    align = "".join("l" if heading == "trial" else "r" for heading in headings)
    body = "".join(f"    {' & '.join(_escaped(cell) for cell in line)} \\\\\n" for line in lines)
    return (
        "\\begin{table}\n  \\centering\n"
        f"  \\caption{{{_escaped(caption)}}}\n  \\begin{{tabular}}{{{align}}}\n    \\toprule\n"
        f"    {' & '.join(_escaped(heading) for heading in headings)} \\\\\n    \\midrule\n{body}"
        "    \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
    )


def terminal(rows: pd.DataFrame, objectives: Objectives, title: str) -> Table:
    """Write the front as a table for the terminal."""
    headings, lines = _cells(rows, objectives)
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "trial" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    table.caption = None if lines else "no trial is complete yet"
    return table


def _cells(rows: pd.DataFrame, objectives: Objectives) -> tuple[list[str], list[list[str]]]:
    """Headings, and the rows of a front as text with units."""
    further = {name: metric(name).label for name in objectives if name not in COLUMNS}
    shown = {**further, **COLUMNS}
    columns = [[_text(name, value) for value in rows[name]] for name in shown]
    return list(shown.values()), [list(line) for line in zip(*columns, strict=True)]


def _escaped(text: str) -> str:
    """Text as LaTeX sets it."""
    plain = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"^-(?=\d)", "$-$", plain)


def _text(name: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return MISSING
    return _SHOW[name](value) if name in _SHOW else show(name, value)


_SHOW: dict[str, Callable[[float], str]] = {"test_minus_float": lambda value: f"{100 * value:+.2f}"}
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{MIDDLE DOT}": r"$\cdot$",
}
