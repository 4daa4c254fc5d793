"""The front as a table: for the terminal, for Markdown, for CSV."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
from rich.table import Table

from analysis.front import Objectives, front
from analysis.metrics import metric, show
from pwfn.metrics import METRICS

MISSING = "-"
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
