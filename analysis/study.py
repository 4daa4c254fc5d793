"""Reads a study's folder, whole or half there, while its sweep runs or after."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import AnalysisError
from analysis.metrics import METRICS
from analysis.storage import Folder

KNOWN_VERSION = 1
"""The schema version that this report was written for."""
VERSION_KEY = b"pwfn.schema_version"
DEFAULT_OBJECTIVES = {"val_top1": "maximize", "unique_values": "minimize"}
DIRECTIONS = ("maximize", "minimize")
TEXTS = ("trial_id", "study", "method", "model", "data", "state", "failure_class", "failure_message", "config_json")
NUMBERS = ("number", "seed", "float_val_top1", "float_test_top1", "num_weights", *METRICS)
_READERS = 16
_LISTINGS = 10
"""Times that a folder is listed again because files vanish: a compaction is running."""


@dataclass(frozen=True)
class Study:
    """What is known about a study at one moment."""

    name: str
    card: Mapping[str, Any]
    """study.json; empty if it is missing."""
    objectives: Mapping[str, str]
    """Metric -> `maximize` or `minimize`."""
    trials: pd.DataFrame
    """One row per trial that has ended; the columns of TEXTS and NUMBERS are always there."""
    num_running: int
    """Trials with a finished round that have not ended."""
    notes: list[str] = field(default_factory=list)
    """What was missing or could not be read, for the reader of the report."""


def study_folder(results: str, study: str) -> str:
    """Join a results folder, local or a URI with options, and a study's name."""
    location, mark, options = results.partition("?") if "://" in results else (results, "", "")
    return f"{location.rstrip('/')}/{study}{mark}{options}"


def studies(results: str) -> list[str]:
    """The names of the studies in a results folder: its folders that hold a study.json or trials."""
    folder = Folder.at(results)
    return [name for name in folder.folders() if _is_study(folder / name)]


def load(folder: str) -> Study:
    """Read the study in `RESULTS/STUDY`; whatever is missing is said in `notes`.

    Raises:
        AnalysisError: There is no study there, or the filesystem refuses.
    """
    place = Folder.at(folder)
    name = place.path.rstrip("/").rpartition("/")[2]
    if not _is_study(place):
        raise AnalysisError(_no_such_study(place.path.rstrip("/").rpartition("/")[0], name, place))
    notes: list[str] = []
    card = _read_card(place, notes)
    objectives = _objectives(card, notes)
    trials = _with_columns(_read_trials(place / "trials", notes), objectives, notes)
    ended = {f"{trial_id}.parquet" for trial_id in trials["trial_id"]}
    running = [file for file in (place / "rounds").files(".parquet") if file not in ended and not _is_compacted(file)]
    return Study(str(card.get("study", name)), card, objectives, trials, len(running), notes)


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


def _objectives(card: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    declared = card.get("objectives")
    if not declared:
        return dict(DEFAULT_OBJECTIVES)
    if isinstance(declared, dict) and all(direction in DIRECTIONS for direction in declared.values()):
        return dict(declared)
    notes.append(f"study.json: objectives {json.dumps(declared)} is not a mapping to maximize or minimize: assumed")
    return dict(DEFAULT_OBJECTIVES)


def _read_trials(folder: Folder, notes: list[str]) -> pd.DataFrame:
    """Read every trial's row once: a compacted file is older than a trial's own."""
    for _ in range(_LISTINGS):
        names = sorted(folder.files(".parquet"), key=lambda name: (not _is_compacted(name), name))
        with ThreadPoolExecutor(_READERS) as pool:
            contents = list(pool.map(folder.read, names))
        if None not in contents:
            break
    tables, found = [], []
    for name, content in zip(names, contents, strict=True):
        try:
            parquet = pq.ParquetFile(pa.BufferReader(content or b""))
            if "trial_id" not in parquet.schema_arrow.names:
                raise ValueError("it has no column trial_id")
            found.append(int((parquet.schema_arrow.metadata or {}).get(VERSION_KEY, 0)))
            tables.append(parquet.read(use_threads=False))
        except (pa.ArrowException, OSError, ValueError) as error:
            notes.append(f"trials/{name} cannot be read and is left out: {' '.join(str(error).split())}")
    _note_versions(found, notes)
    return _joined(tables).drop_duplicates("trial_id", keep="last", ignore_index=True)


def _joined(tables: list[Any]) -> pd.DataFrame:
    """Join tables whose columns may differ. Together: a thousand conversions of one row would take most of the time."""
    if not tables:
        return pd.DataFrame({"trial_id": []})
    try:
        joined: pd.DataFrame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    except pa.ArrowException:  # one name with types that no type holds both of
        joined = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
    return joined


def _note_versions(found: list[int], notes: list[str]) -> None:
    for version in sorted(set(found) - {KNOWN_VERSION}):
        age = "older" if version < KNOWN_VERSION else "newer"
        notes.append(
            f"{found.count(version)} files of trials have the {age} schema version {version} (this report knows "
            f"{KNOWN_VERSION}): columns they lack are empty"
        )


def _with_columns(trials: pd.DataFrame, objectives: Mapping[str, str], notes: list[str]) -> pd.DataFrame:
    """Add the columns that the report needs and the files lack, and give every one its type."""
    numbers = dict.fromkeys([*NUMBERS, *objectives])
    if len(trials):
        notes.extend(f"no trial has the column {name}" for name in (*TEXTS, *numbers) if name not in trials)
    texts = {name: trials.get(name, pd.Series(index=trials.index)).astype("str") for name in TEXTS}
    values = {name: pd.to_numeric(trials.get(name, pd.Series(index=trials.index)), errors="coerce") for name in numbers}
    others = trials.drop(columns=[*texts, *values], errors="ignore")
    columns = {**texts, **{name: column.astype("float64") for name, column in values.items()}}
    return pd.concat([pd.DataFrame(columns, index=trials.index), others], axis=1)


def _is_compacted(name: str) -> bool:
    return name.startswith("compacted-")
