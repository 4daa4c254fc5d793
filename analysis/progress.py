"""What a search has spent, and what it has found by then: hypervolume over time, states, failures, the ledger."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from analysis.feasible import STATES
from analysis.front import Objectives, hypervolume_shares, minimized_objectives
from analysis.series import Series, trials_alone


@dataclass(frozen=True)
class Progress:
    """Hypervolume of all trials that had ended by then, at each step at which it grew, and at the end."""

    num_trials: list[int]
    gpu_hours: list[float]
    wall_hours: list[float]
    share: list[float]


def progress(series: Series, among: pd.DataFrame) -> Progress:
    """Follow the hypervolume over the trials in the order in which they ended; time of lost and pruned work counts."""
    trials = series.trials.sort_values(["finished_at", "number"], na_position="last", kind="stable")
    grown = _improvements(trials, series.objectives)
    steps = list(dict.fromkeys([*grown, len(trials)])) if len(trials) else []
    members = trials.iloc[[step - 1 for step in grown]]  # the others add nothing
    shares = hypervolume_shares(members, series.objectives, among, [bisect_right(grown, step) for step in steps])
    gpu, wall = (trials[name].fillna(0).cumsum().to_numpy() / 3600 for name in ("gpu_seconds", "wall_seconds"))
    at = [step - 1 for step in steps]
    return Progress(steps, gpu[at].tolist(), wall[at].tolist(), shares)


def _improvements(trials: pd.DataFrame, objectives: Objectives) -> list[int]:
    """List after how many trials the front gained a member; only there does the hypervolume grow."""
    found, members = [], np.empty((0, len(objectives)))
    for index, point in enumerate(minimized_objectives(trials, objectives)):
        if not np.isfinite(point).all() or (members <= point).all(axis=1).any():
            continue
        members = moocore.filter_dominated(np.vstack([members, point]))
        found.append(index + 1)
    return found


def ledger(series: Series) -> dict[str, float]:
    """Count trials and hours of a series, by how the trials ended."""
    trials = trials_alone(series.trials)
    row: dict[str, float] = {"trials": len(trials)}
    for state in STATES:
        chosen = trials[trials["state"] == state]
        row[state] = len(chosen)
        row[f"{state}_hours"] = float(chosen["wall_seconds"].sum()) / 3600
        row[f"{state}_gpu_hours"] = float(chosen["gpu_seconds"].sum()) / 3600
    row["wall_hours"] = float(trials["wall_seconds"].sum()) / 3600
    row["gpu_hours"] = float(trials["gpu_seconds"].sum()) / 3600
    row["lost_hours"] = float(trials["lost_seconds"].sum()) / 3600
    row["data_share"] = float(trials["data_seconds"].sum()) / (float(trials["train_seconds"].sum()) or np.nan)
    row["retries"] = float(trials["retries"].sum())
    span = trials["finished_at"].max() - trials["started_at"].min()
    row["span_hours"] = span.total_seconds() / 3600 if pd.notna(span) else np.nan
    return row


def failures(series: Series) -> list[tuple[str, int, str, str]]:
    """List failure classes with their counts, the most frequent message of each, and one trial that has it."""
    failed = series.trials[series.trials["state"] == "failed"]
    classes = failed["failure_class"].fillna("not recorded")
    rows = []
    for name, group in failed.groupby(classes):
        messages = group["failure_message"].dropna()
        message = messages.mode().iloc[0] if len(messages) else "no message"
        example = group[group["failure_message"].fillna("no message") == message]["trial_id"].iloc[0]
        rows.append((str(name), len(group), str(message), str(example)))
    return sorted(rows, key=lambda row: (-row[1], row[0]))
