"""Reads the details of single trials: their rounds, their codebooks, and the entropies of their layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from analysis.errors import AnalysisError
from analysis.layers import LayersError, layer_entropies
from analysis.parquet import read_table
from analysis.storage import Folder
from analysis.study import Study
from pwfn.naming import PointName

SIGMAS = ("sigma_q05", "sigma_q25", "sigma_q50", "sigma_q75", "sigma_q95")
"""PWFN's own numbers of a round: columns in files of version 1, entries of `method_numbers` since."""
ROUNDS = (
    "round", "stage", "val_top1_before", "val_top1", "unique_values", "entropy_bits", *SIGMAS, "fraction", "train_loss",
)  # fmt: skip
VALUES = ("value", "count", "order")
MOST_WEIGHTS = 60_000_000
"""Most weights that are decoded for one report, which takes a few seconds."""


@dataclass(frozen=True)
class Details:
    """Rounds and codebooks of all trials of a study; both tables have a column trial_id."""

    rounds: pd.DataFrame
    values: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def read_details(study: Study) -> Details:
    """Read rounds and codebooks; both are empty for a study that was not read from a folder."""
    if study.folder is None:
        return Details(_typed(pd.DataFrame(), ROUNDS), _typed(pd.DataFrame(), VALUES))
    notes: list[str] = []
    rounds = _unfolded(read_table(study.folder / "rounds", notes, ("trial_id", *ROUNDS, "method_numbers")))
    values = read_table(study.folder / "values", notes, ("trial_id", *VALUES))
    known = {PointName.read(each).run for each in study.trials.loc[study.trials["state"] != "failed", "trial_id"]}
    lacking = len(known - set(rounds["trial_id"]))
    if lacking and known:
        notes.append(f"{lacking} of {len(known)} trials with a result have no rounds file")
    complete = set(study.trials.loc[study.trials["state"] == "complete", "trial_id"])
    lacking = len(complete - set(values["trial_id"]))
    if lacking:
        notes.append(f"{lacking} of {len(complete)} complete trials have no codebook file")
    return Details(_typed(rounds, ROUNDS), _typed(values, VALUES), notes)


def read_layers(folder: Folder, trials: pd.DataFrame, notes: list[str]) -> dict[str, list[tuple[str, int, float]]]:
    """Decode the kept networks of `trials` in order, up to a limit; map each trial_id to its layers with entropies."""
    found: dict[str, list[tuple[str, int, float]]] = {}
    decoded = 0.0
    for trial_id, num_weights in zip(trials["trial_id"], trials["num_weights"].fillna(0), strict=True):
        decoded += num_weights
        if decoded > MOST_WEIGHTS:
            notes.append(f"layers are shown for {len(found)} of {len(trials)} front members: more would take minutes")
            break
        try:
            content = (folder / "models").read(f"{trial_id}.safetensors")
            if content is not None:
                found[trial_id] = layer_entropies(content)
        except (AnalysisError, LayersError) as error:
            notes.append(f"models/{trial_id}.safetensors cannot be read, its layers are not shown: {error}")
    return found


def _unfolded(rounds: pd.DataFrame) -> pd.DataFrame:
    """Turn a method's own numbers, pairs of name and number, into columns; what is a column already stays."""
    if "method_numbers" not in rounds:
        return rounds
    pairs = [dict(each) if isinstance(each, list) else {} for each in rounds["method_numbers"]]
    numbers = pd.DataFrame(pairs, index=rounds.index)
    return rounds.drop(columns="method_numbers").combine_first(numbers)


def _typed(frame: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """The columns as numbers, added where they lack, in the order of trials and rows."""
    ids = frame.get("trial_id", pd.Series(dtype="str")).astype("str")
    numbers = {name: pd.to_numeric(frame.get(name, pd.Series(index=frame.index)), errors="coerce") for name in columns}
    typed = pd.DataFrame({"trial_id": ids, **numbers}, index=frame.index)
    return typed.sort_values(["trial_id", columns[0]], kind="stable", ignore_index=True)
