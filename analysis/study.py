"""Reads the folder of a study, while its sweep runs or after, and even if parts of it are missing."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.feasible import Constraints, judged, violation
from analysis.parquet import read_table
from analysis.storage import Folder
from pwfn.metrics import LOW_COVERAGE, METRICS
from pwfn.naming import PointName, counted, dotted, is_compacted, is_trial, place_in

DEFAULT_OBJECTIVES = {"val_top1": "maximize", "unique_values": "minimize"}
DIRECTIONS = ("maximize", "minimize")
TEXTS = ("trial_id", "study", "method", "model", "data", "state", "failure_class", "failure_message", "config_json")
COSTS = ("wall_seconds", "gpu_seconds", "lost_seconds", "train_seconds", "data_seconds", "retries")
NUMBERS = tuple(
    dict.fromkeys(
        ("number", "stage", "float_val_top1", "float_test_top1", "num_weights", "rounds_done", *COSTS, *METRICS)
    )
)
TIMES = ("started_at", "finished_at")
PLACES = ("host", "commit", "versions_json")
COLUMNS = (*TEXTS, "seed", "left_out", "num_broken_images", *NUMBERS, *TIMES, *PLACES)
"""Columns of a trial's row that are read, besides the objectives; the configuration's come from its JSON."""
LATER = ("stage",)
"""Those of them that files of schema version 1 do not have."""


@dataclass(frozen=True)
class Machine:
    """A node or GPU that failed under trials, as machines.json has it."""

    place: str
    failures: list[Mapping[str, str]]
    """Of each failure: `trial_id`, `failure_class`, `message`; in the order in which they happened."""
    left_alone: bool
    """Whether no trial was given to it any more."""

    def words(self) -> str:
        """Say in one line how often it failed, how the last time, and whether it was left alone."""
        num, last = len(self.failures), self.failures[-1]
        often = "failed once under a trial" if num == 1 else f"failed {num} times under trials, the last time"
        alone = "; it was left alone from then on" if self.left_alone else ""
        return f"{self.place} {often} with {last['failure_class']}: {last['message']}{alone}"


@dataclass(frozen=True, eq=False)
class Study:
    """What is known about a study at one moment."""

    name: str
    """That of its folder, by which the commands find it."""
    card: Mapping[str, Any]
    """study.json; empty if it is missing."""
    objectives: Mapping[str, str]
    """Metric -> `maximize` or `minimize`."""
    trials: pd.DataFrame
    """One row for each trial that has ended; the columns of TEXTS and NUMBERS are always there."""
    num_running: int
    """Trials with a finished round that have not ended."""
    num_ended: int = 0
    """Trials of the search that have ended: neither replicates, nor baselines, nor the earlier stages of a trial."""
    notes: list[str] = field(default_factory=list)
    """What was missing or could not be read, for the reader of the report."""
    folder: Folder | None = None
    """Where its rounds, codebooks and networks are; None if it was never in a folder."""
    machines: list[Machine] = field(default_factory=list)
    """Nodes and GPUs that failed under its trials."""


def study_folder(results: str, study: str) -> str:
    """Join a results folder, local or a URI with options, and a study's name."""
    return place_in(results, study)


def studies(results: str) -> list[str]:
    """The names of the studies in a results folder: its folders that hold a study.json or trials."""
    folder = Folder.at(results)
    return [name for name in folder.folders() if _is_study(folder / name)]


def load(folder: str) -> Study:
    """Read the study in `RESULTS/STUDY`; `notes` says what is missing.

    Raises:
        AnalysisError: There is no study there, or the filesystem refuses.
    """
    place = Folder.at(folder)
    name = place.path.rstrip("/").rpartition("/")[2]
    if not _is_study(place):
        raise AnalysisError(_no_such_study(place.path.rstrip("/").rpartition("/")[0], name, place))
    notes: list[str] = []
    card = _read_card(place, notes)
    notes.extend(_mixtures(card))
    machines = _machines(place, notes)
    objectives = _objectives(card, notes)
    constraints = _constraints(card, notes)
    further = dict.fromkeys([*objectives, *constraints])
    rows = read_table(place / "trials", notes, tuple(dict.fromkeys([*COLUMNS, *further])))
    trials = _with_columns(rows, further, notes).sort_values(["number", "trial_id"], ignore_index=True)
    if constraints:
        trials = judged(trials.assign(violation=violation(trials, constraints)))
    if trials.empty:
        notes.append("no trial has ended yet")
    notes.extend([*_low_coverage(trials, rows), *_broken_images(rows)])
    ended = {f"{trial_id}.parquet" for trial_id in trials["trial_id"]}.union((place / "trials").files(".parquet"))
    running = [file for file in (place / "rounds").files(".parquet") if file not in ended and not is_compacted(file)]
    names = filter(is_trial, trials.loc[trials["number"].notna(), "trial_id"])
    num_ended = len({PointName.read(name).of_trial for name in names})
    return Study(name, card, objectives, trials, len(running), num_ended, notes, place, machines)


def _low_coverage(trials: pd.DataFrame, rows: pd.DataFrame) -> Iterable[str]:
    """Say of each network of which few parameters share values how many do, and name the others."""
    low = trials[trials["coverage"] < LOW_COVERAGE].drop_duplicates("model")
    for row in low.itertuples():
        named = rows.loc[rows["trial_id"] == row.trial_id].get("left_out", pd.Series(dtype=object))
        kinds = [kind for each in named if isinstance(each, Iterable) for kind in each]
        rest = f"; left out are {', '.join(kinds)}" if kinds else ""
        yield f"{row.model}: the values are those of only {row.coverage:.1%} of the parameters{rest}"


def _broken_images(rows: pd.DataFrame) -> Iterable[str]:
    """Say how many images the trials left out; older files do not know, and say nothing."""
    counts = pd.to_numeric(rows.get("num_broken_images", pd.Series(dtype="float64")), errors="coerce").fillna(0)
    if len(counts) and counts.max() > 0:
        upto = "" if counts.nunique() == 1 else "up to "
        yield (
            f"{upto}{counts.max():,.0f} images could not be read and were left out (data.broken_images: skip): "
            "accuracies are those of the others"
        )


def _is_study(folder: Folder) -> bool:
    return "study.json" in folder.files(".json") or "trials" in folder.folders()


def _no_such_study(results: str, name: str, place: Folder) -> str:
    parent = Folder(place.filesystem, results)
    there = [other for other in parent.folders() if _is_study(parent / other)]
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.4)
    if near:
        return f"{results}: no study {name}; did you mean {' or '.join(near)}?"
    return f"{results}: no study {name}; {'there are: ' + ', '.join(there) if there else 'there is none yet'}"


def _read_card(place: Folder, notes: list[str]) -> dict[str, Any]:
    content = place.read("study.json")
    if content is None:
        notes.append("study.json is missing: objectives are assumed, the plan is not known")
        return {}
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError) as error:
        notes.append(f"study.json is not a JSON object ({error}): objectives are assumed, the plan is not known")
        return {}


def _mixtures(card: Mapping[str, Any]) -> list[str]:
    """Say when the study was continued although its space, code, packages or data had changed."""
    return [
        f"trials from {note['at'][:16].replace('T', ' ')} on differ from those before in "
        f"{counted(len(note['differences']), 'point')} (--force-resume), such as {note['differences'][0]}"
        for note in card.get("forced", [])
    ]


def _machines(place: Folder, notes: list[str]) -> list[Machine]:
    """Read which nodes and GPUs failed under trials, and say so in the notes."""
    try:
        places = json.loads(place.read("machines.json") or b"{}").get("places", [])
        found = [Machine(each["place"], list(each["failures"]), bool(each["left_alone"])) for each in places]
        notes.extend(each.words() for each in found)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        notes.append("machines.json does not list places with their failures: which machines failed is not known")
        return []
    return found


def _objectives(card: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    declared = card.get("objectives")
    if not declared:
        return dict(DEFAULT_OBJECTIVES)
    if isinstance(declared, dict) and all(direction in DIRECTIONS for direction in declared.values()):
        return dict(declared)
    notes.append(f"study.json: objectives {json.dumps(declared)} is not a mapping to maximize or minimize: assumed")
    return dict(DEFAULT_OBJECTIVES)


def _constraints(card: Mapping[str, Any], notes: list[str]) -> Constraints:
    space = card.get("space")
    declared = space.get("constraints") if isinstance(space, dict) else None
    if not declared:
        return {}
    if isinstance(declared, dict) and all(_are_bounds(name, bounds) for name, bounds in declared.items()):
        return declared
    notes.append(f"study.json: constraints {json.dumps(declared)} are not min, max or max_drop of metrics: not applied")
    return {}


def _are_bounds(name: str, bounds: Any) -> bool:
    kinds = ("min", "max", "max_drop") if f"float_{name}" in NUMBERS else ("min", "max")
    return isinstance(bounds, dict) and all(
        kind in kinds and isinstance(bound, int | float) for kind, bound in bounds.items()
    )


def _with_columns(trials: pd.DataFrame, further: Iterable[str], notes: list[str]) -> pd.DataFrame:
    """Add columns that the report needs and the files lack, set the type of each, and add a column for each field."""
    numbers = dict.fromkeys([*NUMBERS, *further])
    if len(trials):
        expected = [name for name in (*TEXTS, *numbers) if name not in LATER]
        notes.extend(f"no trial has the column {name}" for name in expected if name not in trials)
    empty = pd.Series(index=trials.index)
    columns: dict[str, pd.Series[Any]] = {name: trials.get(name, empty).astype("str") for name in (*TEXTS, *PLACES)}
    columns |= {name: pd.to_numeric(trials.get(name, empty), errors="coerce").astype("float64") for name in numbers}
    columns["seed"] = pd.to_numeric(trials.get("seed", empty), errors="coerce").round().astype("Int64")
    columns |= {name: pd.to_datetime(trials.get(name, empty), errors="coerce") for name in TIMES}
    fields = pd.DataFrame([_fields(text) for text in columns["config_json"]], index=trials.index)
    joined = pd.concat([pd.DataFrame(columns, index=trials.index), fields], axis=1)
    # Texts as objects: to select rows of forty columns of Arrow's text takes four times as long.
    return joined.astype(dict.fromkeys(joined.select_dtypes("str"), object)).copy()


def _fields(config_json: str | float) -> dict[str, Any]:
    """A configuration's dotted fields; none if there is no configuration."""
    try:
        config = json.loads(config_json) if isinstance(config_json, str) else {}
    except ValueError:
        return {}
    leaves = ((name, value) for name, value in dotted(config, depth=2) if "." in name)
    return {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in leaves}
