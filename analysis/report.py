"""Writes the report of one study or several: figures, tables and the numbers behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd
from rich.table import Table

from analysis.details import read_details
from analysis.errors import AnalysisError
from analysis.feasible import STATES
from analysis.figure import draw, encode
from analysis.front import hypervolume, on_front
from analysis.outcome import draw_outcome
from analysis.page import page
from analysis.series import Panel, Series, panels, trials_alone
from analysis.storage import Folder
from analysis.study import Study, load
from analysis.table import front_rows, latex, markdown, markdown_at_most, terminal
from analysis.understood import understood
from analysis.verdict import verdict

LONGEST_NAMES = 80
"""Most characters of a line that names the studies; a longer one only counts them, as the legend names them too."""


def write_report(studies: str | Study | Sequence[str | Study], out: str) -> list[str]:
    """Write the report of studies (folders, or loaded ones) into the folder `out`; return the paths of its files.

    `report.html` is the page. There are two figures for each model and data set, as PNG and SVG: the front (`front` or
    `front-MODEL-DATA`) and what its points reach on the test images (`...-test`). `front.md`, `front.tex`, `front.csv`
    (the fronts, with each configuration) and `trials.csv` (everything) hold all of them.

    Raises:
        AnalysisError: A study is missing, two have the same name or different objectives, or `out` cannot be written.
    """
    loaded = as_studies(studies)
    _check_comparable(loaded)
    folder, paths = Folder.at(out), []
    parts = panels(loaded)
    subtitles = [_subtitle(loaded, series) for _, series in parts]
    pictures = []
    for (title, series), subtitle in zip(parts, subtitles, strict=True):
        name = "front" if len(parts) == 1 else f"front-{re.sub(r'[^A-Za-z0-9_.]+', '-', title)}"
        figures = {name: draw(series, title, subtitle, _footnote(series))}
        if (outcome := draw_outcome(series, title, subtitle)) is not None:
            figures[f"{name}-test"] = outcome
        for name, figure in figures.items():
            pictures_of = {kind: encode(figure, kind) for kind in ("png", "svg")}
            paths += [folder.write(f"{name}.{kind}", content) for kind, content in pictures_of.items()]
        pictures.append(pictures_of["png"])
    details = {study.name: read_details(study) for study in loaded}
    for study in loaded:
        study.notes.extend(details[study.name].notes)
    tables = _tables(loaded, parts)
    paths.append(folder.write("report.html", page(loaded, parts, details, subtitles, pictures, tables).encode()))
    tables["front.md"] = _document(loaded, parts).encode()  # the page has noticed more that is missing
    return [*paths, *(folder.write(name, content) for name, content in tables.items())]


def _tables(studies: Sequence[Study], parts: Sequence[Panel]) -> dict[str, bytes]:
    """Write the fronts and the trials as text: name of the file -> content."""
    fronts = [front_rows(one.points, one.objectives) for _, series in parts for one in series]
    trials = [one.trials.assign(on_front=on_front(one.trials, one.objectives)) for _, series in parts for one in series]
    return {
        "front.md": _document(studies, parts).encode(),
        "front.tex": "\n".join(_latex_tables(parts)).encode(),
        "front.csv": _csv(fronts),
        "trials.csv": _csv(trials),
    }


def front_tables(studies: str | Study | Sequence[str | Study]) -> list[Table]:
    """Return the fronts as tables for the terminal, one for each study, method, model and data set."""
    return [
        terminal(front_rows(one.points, one.objectives), one.objectives, f"{title} \N{MIDDLE DOT} {_named(one)}")
        for title, series in panels(as_studies(studies))
        for one in series
    ]


def verdicts(studies: str | Study | Sequence[str | Study]) -> list[str]:
    """Return the answer in words for each model and data set, behind their names."""
    return [f"{title}: {' '.join(verdict(series))}" for title, series in panels(as_studies(studies))]


def as_studies(studies: str | Study | Sequence[str | Study]) -> list[Study]:
    """Load the studies that are given as folders; keep those that are loaded already."""
    several = [studies] if isinstance(studies, str | Study) else studies
    return [load(study) if isinstance(study, str) else study for study in several]


def _named(one: Series) -> str:
    return f"study {one.study}" if one.label == one.study else f"study {one.study}, method {one.method}"


def _check_comparable(studies: Sequence[Study]) -> None:
    for place, study in enumerate(studies):
        if study.name in [other.name for other in studies[:place]]:
            raise AnalysisError(f"two studies are named {study.name} and cannot be told apart in one report")
        if study.objectives != studies[0].objectives:
            raise AnalysisError(
                f"studies {studies[0].name} and {study.name} have different objectives "
                f"({_words(studies[0])}; {_words(study)}) and cannot share a front; report them one by one"
            )


def _words(study: Study) -> str:
    return ", ".join(f"{direction} {name}" for name, direction in study.objectives.items())


def _subtitle(studies: Sequence[Study], series: Sequence[Series]) -> str:
    """Say which studies these are, how far they are, and how their trials ended."""
    names = list(dict.fromkeys(one.study for one in series))
    shown = [study for study in studies if study.name in names]
    points = pd.concat([one.trials for one in series])
    states = trials_alone(points)["state"].value_counts()
    counts = [f"{states.get(state, 0)} {state}" for state in STATES if states.get(state, 0)]
    counts += [f"{len(points)} points"] if len(points) > states.sum() else []
    running = sum(study.num_running for study in shown)
    planned = sum(plan for study in shown if isinstance(plan := study.card.get("num_trials"), int))
    ended = sum(study.num_ended for study in shown)
    progress = [f"{running} running"] if running else []
    progress += [f"{ended} of {planned} trials ended"] if planned > ended else []
    words = f"{'studies' if len(names) > 1 else 'study'} {', '.join(names)}"
    if len(words) > LONGEST_NAMES:
        words = f"{len(names)} studies"
    return " \N{MIDDLE DOT} ".join([words, *counts, *progress])


def _footnote(series: Sequence[Series]) -> str:
    """Give the hypervolume of each series, measured in one common box, and that box."""
    everything = pd.concat([one.points for one in series])
    volumes = [hypervolume(one.points, one.objectives, everything) for one in series]
    names = [f" of {one.label}" if len(series) > 1 else "" for one in series]
    shares = ", ".join(f"{volume.share:.4f}{name}" for volume, name in zip(volumes, names, strict=True))
    return f"Hypervolume {shares}, at most 1; {volumes[0].box}"


def _document(studies: Sequence[Study], parts: Sequence[Panel]) -> str:
    """Write the Markdown page: a table for each series of each panel, then what was missing."""
    return "\n".join([*_sections(studies, parts), *_understood(studies), *_notes(studies)])


def _sections(studies: Sequence[Study], parts: Sequence[Panel]) -> Iterator[str]:
    for title, series in parts:
        yield f"# {title}\n"
        yield f"{_subtitle(studies, series)}\n"
        yield f"{' '.join(verdict(series))}\n"
        if len(series) > 1 and (table := markdown_at_most(series)):
            yield table
        for one in series:
            yield f"## Front of {one.label}\n"
            yield markdown(front_rows(one.points, one.objectives), one.objectives)
        yield f"{_footnote(series)}.\n"


def _latex_tables(parts: Sequence[Panel]) -> Iterator[str]:
    for title, series in parts:
        for one in series:
            yield latex(front_rows(one.points, one.objectives), one.objectives, f"{title}, {_named(one)}")


def _understood(studies: Sequence[Study]) -> Iterator[str]:
    lines = [f"- {study.name}, {heading}: {text}" for study in studies for heading, text in understood(study.card)]
    if lines:
        yield "## What was understood\n"
        yield "\n".join([*lines, ""])


def _notes(studies: Sequence[Study]) -> Iterator[str]:
    noted = [f"- {study.name}: {note}" for study in studies for note in study.notes]
    if noted:
        yield "## Notes\n"
        yield "\n".join([*noted, ""])


def _csv(tables: Sequence[pd.DataFrame]) -> bytes:
    table = pd.concat(tables, ignore_index=True)
    whole = table.select_dtypes("float64").convert_dtypes()  # so that 29 is not written 29.0
    content: str = table.assign(**{str(name): whole[name] for name in whole}).to_csv(index=False)
    return content.encode()
