"""Renders the offline page. Text and tables are made here; its own scripts draw figures from embedded numbers."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.offline

from analysis.details import Details
from analysis.feasible import INFEASIBLE, STATES
from analysis.front import hypervolume, on_front
from analysis.looks import DASHES, LIGHT, MARKERS, style_sheet
from analysis.metrics import metric, show
from analysis.payload import compressed, payload
from analysis.progress import failures, ledger
from analysis.published import published
from analysis.seeds import front_probability
from analysis.series import Panel, Series, trials_alone
from analysis.study import Study
from analysis.table import AT_MOST_CAPTION, COLUMNS, at_most, front_rows, reached_words
from analysis.understood import understood
from analysis.verdict import TOLERANCES, answer, verdict
from pwfn.metrics import LOW_COVERAGE

SCRIPTS = (
    "state.js", "axes.js", "filter.js", "address.js", "plots.js", "front.js", "trial.js", "curves.js", "search.js",
    "fields.js", "parallel.js", "tables.js", "downloads.js", "main.js",
)  # fmt: skip
MISSING = "\N{EN DASH}"
MOST_PICTURES = 8
"""Most figures that the page carries for readers without script, about 0.2 MB each."""
MAIN = ("unique_values", "coverage", "test_top1", "test_minus_float", "val_top1", "entropy_bits", "size_bytes")
"""Columns of the first table where there is one series; the table of all columns is below."""
Json = dict[str, Any]


def page(
    studies: Sequence[Study], parts: Sequence[Panel], details: Mapping[str, Details], subtitles: Sequence[str],
    pictures: Sequence[bytes], files: Mapping[str, bytes],
) -> str:  # fmt: skip
    """Render the report of studies as one HTML text that needs no other file and no network.

    Args:
        studies: All studies in the report; what turns out to be missing is added to their notes.
        parts: Their trials, by model and data set.
        details: Rounds and codebooks, by study.
        subtitles: One line for each part: studies, states, progress.
        pictures: A PNG of each part, for readers without script.
        files: The other files of the report, which the page offers to save: name -> content.
    """
    content = payload(studies, parts, details)
    content["commands"] = {study.name: _command(study) for study in studies}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    template = environment.get_template("report.html.j2")
    constrained = any("violation" in study.trials for study in studies)
    states = [state for state in STATES if state != INFEASIBLE or constrained]
    place = _places(content)
    shown = [
        _part(studies, title, members, subtitle, place)
        for (title, members), subtitle in zip(parts, subtitles, strict=True)
    ]
    for part, picture in zip(shown, pictures[:MOST_PICTURES], strict=False):
        part["picture"] = base64.b64encode(picture).decode()
    return template.render(
        title=_title(studies, parts),
        parts=shown,
        studies=", ".join(study.name for study in studies),
        comparison=[_comparison_row(title, one) for title, members in parts for one in members],
        comparison_headings=_COMPARISON,
        ledger=[_ledger_row(title, one) for title, members in parts for one in members],
        failures=[(one.label, *row) for _, members in parts for one in members for row in failures(one)],
        states=states,
        spent=[*(column for state in states for column in ((state, state), ("time", f"{state}_hours"))), *_SPENT],
        understood=_understood(studies),
        hosts=_hosts(parts),
        machines=[(study.name, each) for study in studies for each in study.machines],
        notes=_notes(studies),
        gpu=any(one.trials["gpu_seconds"].sum() > 0 for _, members in parts for one in members),
        files=list(files),
        files_data=compressed({name: text.decode() for name, text in files.items()}),
        style=f"{style_sheet()}\n{_text('page.css')}",
        scripts="\n".join(_text(name) for name in SCRIPTS),
        plotly=plotly.offline.get_plotlyjs(),
        data=compressed({**content, "symbols": list(MARKERS), "dashes": list(DASHES), "numColours": len(LIGHT)}),
    )


def _understood(studies: Sequence[Study]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the lines of all studies, those of studies that understood the same thing once: names, lines."""
    together: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for study in studies:
        if lines := understood(study.card):
            together.setdefault(tuple(lines), []).append(study.name)
    return [(", ".join(names), list(lines)) for lines, names in together.items()]


def _notes(studies: Sequence[Study]) -> list[tuple[str, str]]:
    """Return all notes, those that several studies share once: names, note."""
    together: dict[str, list[str]] = {}
    for study in studies:
        for note in dict.fromkeys(study.notes):
            together.setdefault(note, []).append(study.name)
    return [(", ".join(names), note) for note, names in together.items()]


def _hosts(parts: Sequence[Panel]) -> list[list[tuple[str, Any]]]:
    """Return a row for each machine: trials that ended there, how, and the time they took and lost."""
    trials = trials_alone(pd.concat([one.trials for _, members in parts for one in members]))
    rows = []
    for host, group in trials.groupby(trials["host"].fillna("not recorded")):
        counts = [int((group["state"] == state).sum()) for state in STATES]
        retried = int((group["retries"].fillna(0) > 0).sum())
        hours = [float(group[name].sum()) / 3600 for name in ("wall_seconds", "lost_seconds")]
        cells = [_cell("count", each) for each in (len(group), *counts, retried)]
        rows.append([(str(host), str(host)), *cells, *(_cell("hours", each) for each in hours)])
    return rows


def _text(name: str) -> str:
    return files("analysis").joinpath("templates", name).read_text()


def _title(studies: Sequence[Study], parts: Sequence[Panel]) -> str:
    """Name what was compressed: one or two networks with their data, else how many."""
    titles = [title for title, _ in parts]
    models, data = zip(*(title.partition(" on ")[::2] for title in titles), strict=True)
    if len(titles) <= 3 and len(set(data)) == 1 and data[0]:
        return f"{' and '.join(models)} on {data[0]}"
    return " and ".join(titles) if len(titles) <= 2 else f"{len(titles)} networks and data sets, {len(studies)} studies"


def _command(study: Study) -> str:
    """Return the command that runs a trial of a study again, without the trial's identifier at its end."""
    results = study.folder.path.rpartition("/")[0] if study.folder else "results"
    place = [] if results.rpartition("/")[2] == "results" else ["--results", results]
    return f"{shlex.join(['pwfn', 'train', *place, '--study', study.name])} --trial "


def _places(content: Json) -> dict[tuple[str, str, str], int]:
    """Map panel, series and trial to the trial's row in the numbers of the page."""
    series = content["series"]
    rows = zip(content["trials"]["series"], content["trials"]["id"], strict=True)
    return {
        (series[index]["panel"], series[index]["label"], trial_id): row for row, (index, trial_id) in enumerate(rows)
    }


def _part(
    studies: Sequence[Study], title: str, members: Sequence[Series], subtitle: str,
    place: Mapping[tuple[str, str, str], int],
) -> Json:  # fmt: skip
    """Collect one model and data set: verdict, tables, published rows, and what selection gained by luck."""
    everything = pd.concat([one.points for one in members])
    volumes = [(one.label, hypervolume(one.points, one.objectives, everything)) for one in members]
    names = {one.study for one in members}
    return {
        "title": title,
        "subtitle": subtitle,
        "verdict": verdict(members),
        "warnings": _warnings([study for study in studies if study.name in names]),
        "picture": None,
        "table": _first_table(title, members, place),
        "fronts": [_front_table(title, one, place) for one in members],
        "published": [
            (row.label, _show("unique_values", row.unique_values), _show("entropy_bits", row.entropy_bits),
             _show("test_top1", row.test_top1), row.setting, row.source)
            for row in published(title).itertuples()
        ],
        "volumes": [(label, f"{volume.share:.4f}") for label, volume in volumes],
        "box": volumes[0][1].box,
        "curse": [(one.label, words) for one in members if (words := _curse(one))],
        "unsure": _unsure(members),
    }  # fmt: skip


def _warnings(studies: Sequence[Study]) -> list[str]:
    """Say in a line each what a reader must know before believing the answer; the notes say more."""
    found = []
    if forced := [study.name for study in studies if study.card.get("forced")]:
        found.append(f"Continued after code, data or packages had changed (--force-resume): {', '.join(forced)}.")
    if alone := [f"{each.place} ({study.name})" for study in studies for each in study.machines if each.left_alone]:
        found.append(f"Failed under trials, so left alone: {', '.join(alone)}.")
    coverage = pd.concat([study.trials.assign(study=study.name) for study in studies])
    low = coverage[coverage["coverage"] < LOW_COVERAGE]
    if len(low):
        share = show("coverage", low["coverage"].min())
        found.append(f"The values are those of only {share} of the parameters: {', '.join(low['study'].unique())}.")
    return found


def _first_table(title: str, members: Sequence[Series], place: Mapping[tuple[str, str, str], int]) -> Json | None:
    """Return the table under the figure: of several series what each reaches with so many values, of one its front."""
    if len(members) == 1:
        return _main_front(title, members[0], place)
    limits, rows = at_most(members)
    if not limits:
        return None
    best = [
        max((cell.test for cell in column if cell is not None), default=np.nan) for column in zip(*rows, strict=True)
    ]
    lines = []
    for one, row in zip(members, rows, strict=True):
        cells = [
            {"text": reached_words(cell, limit), "key": "" if cell is None else cell.test,
             "row": None if cell is None else place[title, one.label, cell.trial_id],
             "best": cell is not None and cell.test == best[at]}
            for at, (limit, cell) in enumerate(zip(limits, row, strict=True))
        ]  # fmt: skip
        lines.append({"name": one.label, "row": None, "cells": cells})
    headings = ["series", *(f"\N{LESS-THAN OR EQUAL TO} {each}" for each in limits)]
    return {"caption": AT_MOST_CAPTION, "headings": headings, "lines": lines}


def _main_front(title: str, one: Series, place: Mapping[tuple[str, str, str], int]) -> Json | None:
    rows = front_rows(one.points, one.objectives)
    shown = [name for name in dict.fromkeys([*one.objectives, *MAIN]) if rows[name].notna().any()]
    shown.sort(key=lambda name: MAIN.index(name) if name in MAIN else -1)
    lines = []
    for _, row in rows.iterrows():
        cells = [{"text": _show(name, row[name]), "key": _key(row[name]), "row": None, "best": False} for name in shown]
        seeds = {"text": f"{row['num_seeds']:.0f}", "key": row["num_seeds"], "row": None, "best": False}
        number = place[title, one.label, row["trial_id"]]
        lines.append({"name": row["trial_id"], "row": number, "cells": [*cells, seeds]})
    headings = ["trial", *(COLUMNS.get(name, metric(name).label) for name in shown), "seeds"]
    return {"caption": f"The front of {one.label}", "headings": headings, "lines": lines} if lines else None


def _front_table(title: str, one: Series, place: Mapping[tuple[str, str, str], int]) -> Json:
    rows = front_rows(one.points, one.objectives)
    chances = front_probability(one.trials, one.points, one.objectives)
    shown = {**{name: metric(name).label for name in one.objectives}, **COLUMNS}
    shown.pop("trial_id")
    lines = []
    for _, row in rows.iterrows():
        cells = [(_show(name, row[name]), _key(row[name])) for name in shown]
        chance = chances.get(row["trial_id"])
        seeds = (f"{row['num_seeds']:.0f}", row["num_seeds"])
        likely = (MISSING if chance is None else f"{100 * chance:.0f} %", -1 if chance is None else chance)
        lines.append((place[title, one.label, row["trial_id"]], row["trial_id"], [*cells, seeds, likely]))
    return {
        "label": one.label,
        "headings": [*shown.values(), "seeds", "on front"],
        "lines": lines,
    }


def _unsure(members: Sequence[Series]) -> str:
    """Say for which series no probability of a place on the front can be given, and why; empty if there is none."""
    fronts = [one for one in members if on_front(one.points, one.objectives).any()]
    labels = [one.label for one in fronts if not front_probability(one.trials, one.points, one.objectives)]
    if not labels:
        return ""
    return (
        f"How probable a place on the front is cannot be said for {', '.join(labels)}: that takes at least two "
        "configurations with at least two seeds each."
    )


def _curse(one: Series) -> str:
    """Say how much of the front's validation accuracy comes from the luck of being chosen: the winner's curse.

    Empty if no member of the front has both accuracies.
    """
    points = one.points[(one.points["state"] == "complete") & one.points[["val_top1", "test_top1"]].notna().all(axis=1)]
    chosen = points[on_front(points, one.objectives)]
    others = points.drop(chosen.index)
    others = others[others["val_top1"] >= chosen["val_top1"].min()]
    if len(chosen) == 0:
        return ""
    gap = 100 * float((chosen["val_top1"] - chosen["test_top1"]).mean())
    words = f"validation minus test is {gap:+.2f} points for front members (mean of {len(chosen)})"
    if len(others) < 3:
        return f"{words}; too few other trials are as accurate to say how much of that is the choice's luck"
    rest = 100 * float((others["val_top1"] - others["test_top1"]).mean())
    return (
        f"{words} and {rest:+.2f} for trials as accurate that were not chosen (mean of {len(others)}); the difference, "
        f"{gap - rest:+.2f} points, is what choosing on validation flatters: the winner's curse"
    )


_COMPARISON = (
    "model and data", "series", "configurations", "front", "float test", "within 0.5", "test", "within 1", "test",
    "hypervolume", "time", "GPU time",
)  # fmt: skip


def _comparison_row(title: str, one: Series) -> list[tuple[str, Any]]:
    """Return text and sorting key of each cell in the row of a series."""
    complete = one.points[one.points["state"] == "complete"]
    row: list[tuple[str, Any]] = [(title, title), (one.label, one.label), _cell("count", len(complete))]
    row.append(_cell("count", int(on_front(one.points, one.objectives).sum())))
    floats = complete["float_test_top1"].dropna()
    row.append(_cell("test_top1", floats.mean() if len(floats) else np.nan))
    for tolerance in TOLERANCES:
        found = answer([one], tolerance)
        row.append(_cell("unique_values", np.nan if found is None else found.point["unique_values"]))
        row.append(_cell("test_top1", np.nan if found is None else found.point["test_top1"]))
    row.append(_cell("share", hypervolume(one.points, one.objectives).share))
    spent = ledger(one)
    return [*row, _cell("hours", spent["wall_hours"]), _cell("hours", spent["gpu_hours"])]


_SPENT = (
    ("all", "trials"), ("time", "wall_hours"), ("GPU time", "gpu_hours"), ("lost time", "lost_hours"),
    ("waiting for data", "data_share"), ("retries", "retries"), ("first to last", "span_hours"),
)  # fmt: skip
"""Headings and entries of the ledger that follow the two columns of each state."""


def _ledger_row(title: str, one: Series) -> Json:
    spent = ledger(one)
    kinds = {"hours": "hours", "share": "percent"}
    cells = {name: _cell(kinds.get(name.rpartition("_")[2], "count"), value) for name, value in spent.items()}
    return {"panel": title, "label": one.label, **cells}


def _cell(name: str, value: float) -> tuple[str, Any]:
    return _show(name, value), _key(value)


def _key(value: Any) -> Any:
    """Return the key by which a table sorts a cell; a missing value gives an empty text."""
    return value if isinstance(value, str) else "" if pd.isna(value) else float(value)


def _show(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return MISSING
    return str(_SHOW[name](value)) if name in _SHOW else show(name, value)


def _duration(hours: float) -> str:
    """Write a duration with three digits, in hours, minutes or seconds."""
    for size, unit in ((1, "h"), (1 / 60, "min")):
        if hours >= size:
            return f"{hours / size:.3g} {unit}" if hours / size < 1000 else f"{hours / size:.0f} {unit}"
    return f"{3600 * hours:.3g} s"


_SHOW: dict[str, Any] = {
    "count": "{:.0f}".format,
    "share": "{:.4f}".format,
    "hours": _duration,
    "percent": "{:.1%}".format,
    "test_minus_float": lambda value: f"{100 * value:+.2f}",
}
