"""Collects the numbers inside the page (trials, fronts, seeds, rounds, codebooks) into one compressed text."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.details import ROUNDS, VALUES, Details, read_layers
from analysis.front import Objectives, front
from analysis.importance import importance, varied_fields
from analysis.metrics import metric
from analysis.progress import progress
from analysis.published import published
from analysis.seeds import attainment, front_probability
from analysis.series import BASELINES, Panel, Series
from analysis.study import COSTS, Study
from analysis.table import COLUMNS
from analysis.window import axis_names
from pwfn.metrics import METRICS
from pwfn.naming import PointName

AXES: dict[str, str] = {name: metric.direction for name, metric in METRICS.items() if metric.is_axis}
"""Metrics that always have a front against the accuracy, and the better direction of each."""
FLOATS = ("float_val_top1", "float_test_top1")
MOST_ROUNDS = 80_000
MOST_VALUES = 600_000
"""Most rows of rounds and of codebooks that a page carries, about 3 MB each; the best trials come first."""
Json = dict[str, Any]


def payload(studies: Sequence[Study], parts: Sequence[Panel], details: Mapping[str, Details]) -> Json:
    """Collect all that the figures of the page show; missing layers and details are added to the studies' notes."""
    series = [one for _, members in parts for one in members]
    trials = [one.trials for one in series]
    rows = pd.concat(trials, ignore_index=True)
    rows["series"] = np.repeat(np.arange(len(series)), [len(each) for each in trials])
    place = {
        (index, trial_id): row
        for row, (index, trial_id) in enumerate(zip(rows["series"], rows["trial_id"], strict=True))
    }
    quality = axis_names(series[0].objectives)[1]
    shown = dict.fromkeys([*METRICS, *series[0].objectives])
    first = _by_rank(rows, series, place, quality)
    return {
        "metrics": {name: _metric(name, series[0].objectives) for name in shown},
        "offered": [name for name in shown if rows[name].notna().any()],
        "headings": COLUMNS,
        "axes": list(_axes(series[0].objectives)),
        "quality": quality,
        "panels": [_panel(title, members) for title, members in parts],
        "series": [_finite(_series(index, one, place, title)) for index, (title, one) in enumerate(_titled(parts))],
        "trials": _trials(rows, shown, series),
        "rounds": _ragged(rows, details, series, "rounds", ROUNDS, first, MOST_ROUNDS),
        "values": _ragged(rows, details, series, "values", VALUES, first, MOST_VALUES),
        "layers": _layers(studies, series, place),
        "machineFailures": [
            {"study": study.name, "trial": each["trial_id"], "place": machine.place, "kind": each["failure_class"]}
            for study in studies
            for machine in study.machines
            for each in machine.failures
        ],
    }


def compressed(content: Json) -> str:
    """Encode as JSON, deflate and base64, which `DecompressionStream("deflate")` in the page decodes."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 7)).decode()


def _finite(value: Any) -> Any:
    """Turn NaN and infinity into None, at any depth; rows that another tool wrote may lack times and costs."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def numbers(values: Iterable[Any]) -> list[Any]:
    """Round to six significant digits; None replaces what is not finite, whole numbers become integers."""
    array = np.array(list(values), dtype=np.float64)  # None becomes NaN
    finite = np.isfinite(array)
    some = np.where(finite & (array != 0), np.abs(array), 1)
    places = np.clip(5 - np.floor(np.log10(some)), -300, 300)
    unit = 10 ** np.abs(places)
    rounded = np.where(places > 0, np.round(array * unit) / unit, np.round(array / unit) * unit)
    whole = finite & (np.abs(rounded) < 2**53) & (rounded == np.floor(rounded))
    listed = np.full(len(array), None, dtype=object)
    listed[finite] = rounded[finite]
    listed[whole] = rounded[whole].astype(np.int64)
    return list(listed)


def _titled(parts: Sequence[Panel]) -> list[tuple[str, Series]]:
    return [(title, one) for title, members in parts for one in members]


def _axes(objectives: Objectives) -> dict[str, str]:
    own = axis_names(objectives)[0]
    return {own: objectives.get(own, "minimize"), **AXES}


def _metric(name: str, objectives: Objectives) -> Json:
    known = metric(name)
    direction = objectives.get(name, known.direction)
    return {
        "label": known.label,
        "heading": COLUMNS.get(name, ""),
        "unit": known.unit,
        "log": known.log2,
        "percent": known.unit == "fraction",
        "accuracy": known.unit == "fraction" and name.endswith(("top1", "top5")),
        "float": f"float_{name}" if known.has_float else None,
        "better": direction,
    }


def _panel(title: str, members: Sequence[Series]) -> Json:
    everything = pd.concat([one.trials for one in members])
    return {
        "title": title,
        "float": {column: numbers(sorted(everything[column].dropna().unique())) for column in FLOATS},
        "published": [
            {**row, **dict(zip(_NUMBERS, numbers([row[name] for name in _NUMBERS]), strict=True))}
            for row in published(title).to_dict("records")
        ],
    }


_NUMBERS = ("unique_values", "entropy_bits", "test_top1")


def _series(index: int, one: Series, place: Mapping[tuple[int, str], int], title: str) -> Json:
    x, quality = axis_names(one.objectives)
    fronts, surfaces = {}, {}
    for name, direction in _against(one, quality).items():
        members = front(one.points, {quality: "maximize", name: direction})
        fronts[name] = [place[index, trial_id] for trial_id in members.sort_values(name)["trial_id"]]
    for name, direction in _axes(one.objectives).items():
        surface = attainment(one.trials, one.points, {quality: "maximize", name: direction})
        surfaces[name] = None if surface is None else dataclasses.asdict(surface)
    return {
        "label": one.label,
        "short": one.short,
        "isBaseline": one.method in BASELINES,
        "study": one.study,
        "method": one.method,
        "panel": title,
        "fields": varied_fields(one.trials),
        "constants": _constants(one.trials),
        "fronts": fronts,
        "attainment": surfaces,
        "replicated": _replicated(index, one, place),
        "progress": dataclasses.asdict(progress(one, one.trials)),
        "importance": [dataclasses.asdict(found) for name in (quality, x) if (found := importance(one.trials, name))],
    }


def _against(one: Series, quality: str) -> dict[str, str]:
    """The metrics that may form a front with the accuracy: all but accuracies, and the better direction of each."""
    known = {name: each.direction for name, each in METRICS.items() if not name.endswith(("top1", "top5"))}
    return {name: direction for name, direction in {**_axes(one.objectives), **known}.items() if name != quality}


def _constants(trials: pd.DataFrame) -> Json:
    """Return the fields of the configuration that have one value in all trials; absent fields are left out."""
    dotted = [name for name in trials.columns if "." in name]
    fixed = [name for name in dotted if trials[name].nunique(dropna=False) == 1 and trials[name].notna().all()]
    return {name: _constant(trials[name].iloc[0]) for name in fixed}


def _constant(value: Any) -> Any:
    """A number as the trials' columns have it, so that 2 and 2.0 are equal; anything else as text."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return numbers([value])[0] if is_number else str(value)


def _replicated(index: int, one: Series, place: Mapping[tuple[int, str], int]) -> list[Json]:
    """List configurations with several seeds: their trials, and how probable their place on the front is."""
    chances = front_probability(one.trials, one.points, one.objectives)
    several = one.points[one.points["num_seeds"] >= 2]
    return [
        {"trials": [place[index, each] for each in ids], "probability": chances.get(trial_id)}
        for trial_id, ids in zip(several["trial_id"], several["trial_ids"], strict=True)
    ]


def _trials(rows: pd.DataFrame, shown: Iterable[str], series: Sequence[Series]) -> Json:
    fields = dict.fromkeys(name for one in series for name in varied_fields(one.trials))
    further = ("number", *FLOATS, *COSTS, "rounds_done", "num_weights")
    begun = rows["started_at"].min()
    seconds = {name: (rows[name] - begun).dt.total_seconds() for name in ("started_at", "finished_at")}
    hosts = rows["host"].fillna("not recorded").astype(str)
    codes, names = pd.factorize(hosts)
    return {
        "id": rows["trial_id"].tolist(),
        "seed": [None if pd.isna(seed) else str(int(seed)) for seed in rows["seed"]],
        "series": rows["series"].tolist(),
        "startedAt": {
            str(study): first.isoformat(sep=" ", timespec="minutes")
            for study, first in rows.groupby([series[index].study for index in rows["series"]])["started_at"]
            .min()
            .items()
            if pd.notna(first)
        },
        "started": [None if pd.isna(each) else round(each) for each in seconds["started_at"]],
        "finished": [None if pd.isna(each) else round(each) for each in seconds["finished_at"]],
        "host": codes.tolist(),
        "hosts": names.tolist(),
        "state": _finite(rows["state"].tolist()),
        "failure": [
            None if pd.isna(name) else f"{name}: {'' if pd.isna(message) else message}"
            for name, message in zip(rows["failure_class"], rows["failure_message"], strict=True)
        ],
        "metrics": {name: numbers(rows[name]) for name in dict.fromkeys([*shown, *further])},
        "fields": {name: _field(rows[name]) for name in fields},
    }


def _field(column: pd.Series[Any]) -> list[Any]:
    """Return a column as numbers if all are numbers, else as text; None if a trial does not have the field."""
    if any(isinstance(value, bool | np.bool_) for value in column):
        return [None if pd.isna(value) else str(value) for value in column]
    as_numbers = pd.to_numeric(column, errors="coerce")
    if as_numbers.notna().sum() == column.notna().sum():
        return numbers(as_numbers)
    return [None if pd.isna(value) else str(value) for value in column]


def _by_rank(
    rows: pd.DataFrame, series: Sequence[Series], place: Mapping[tuple[int, str], int], quality: str
) -> list[int]:
    """Order all rows, those on a front first, then by accuracy; the page carries details in this order."""
    members = [
        place[index, trial_id]
        for index, one in enumerate(series)
        for name, direction in _axes(one.objectives).items()
        for trial_id in front(one.points, {quality: "maximize", name: direction})["trial_id"]
    ]
    others = rows[quality].fillna(-np.inf).sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys([*members, *(int(index) for index in others)]))


def _ragged(
    rows: pd.DataFrame, details: Mapping[str, Details], series: Sequence[Series], kind: str,
    columns: Sequence[str], first: Sequence[int], most: int,
) -> Json:  # fmt: skip
    """Concatenate the tables of the trials, and say where each begins; as many trials as there is room for.

    `start` has one entry per trial and one more; a trial that was left out is in `omitted`.
    """
    tables = pd.concat([getattr(each, kind).assign(study=study) for study, each in details.items()])
    studies = pd.Series([series[index].study for index in rows["series"]], index=rows.index, dtype="str")
    names = rows["trial_id"]
    if kind == "rounds":  # those of all stages of a trial belong together
        names = names.map(lambda name: PointName.read(name).run)
    places = pd.DataFrame({"study": studies, "trial_id": names, "row": rows.index})
    table = tables.merge(places, on=["study", "trial_id"]).sort_values("row", kind="stable")
    lengths = np.bincount(table["row"], minlength=len(rows))
    order = np.array(first, dtype=int)
    fits = np.zeros(len(rows), dtype=bool)
    fits[order] = np.cumsum(lengths[order]) <= most
    kept = table[fits[table["row"].to_numpy(int)]]
    return {
        "start": np.concatenate([[0], np.cumsum(np.where(fits, lengths, 0))]).tolist(),
        "omitted": np.flatnonzero(~fits & (lengths > 0)).tolist(),
        "columns": {name: numbers(kept[name].astype(float)) for name in columns},
    }


def _layers(studies: Sequence[Study], series: Sequence[Series], place: Mapping[tuple[int, str], int]) -> Json:
    """Return the layers of those networks on the fronts that were kept, by the row of the trial."""
    found: Json = {}
    folders = {study.name: study for study in studies}
    for index, one in enumerate(series):
        study = folders[one.study]
        if study.folder is None:
            continue
        members = front(one.points, one.objectives)
        for trial_id, layers in read_layers(study.folder, members, study.notes).items():
            found[str(place[index, trial_id])] = [[name, num, *numbers([bits])] for name, num, bits in layers]
    return found
