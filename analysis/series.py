"""Groups trials for comparison: by model and data set, then by study and method; merges seeds of one configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.feasible import FINISHED, judged
from analysis.front import Objectives
from analysis.metrics import SPREAD
from analysis.study import Study
from pwfn.naming import PointName, is_trial

BASELINES = ("kmeans", "msq", "gpfq")
"""Methods that do not train: what a method that trains has to beat."""


@dataclass(frozen=True, eq=False)
class Series:
    """The trials of one method of one study on one model and data set, with the objectives that decide its front."""

    study: str
    method: str
    label: str
    """Name in the report: the study, the method or both, whichever tells it from the other series."""
    trials: pd.DataFrame
    objectives: Objectives

    @cached_property
    def points(self) -> pd.DataFrame:
        """What is compared: configurations, each the mean of its seeds, and the trials that are not complete."""
        return configurations(self.trials)


Panel = tuple[str, list[Series]]
"""A model and data set in words, and the series that have trials on it."""


def panels(studies: Sequence[Study]) -> list[Panel]:
    """Group trials by model and data set, as only such accuracies can be compared; without trials: an empty panel."""
    several_methods = any(study.trials["method"].nunique() > 1 for study in studies)
    sorted_out: dict[str, list[Series]] = {}
    for study in studies:
        known = study.trials[["model", "data"]].fillna("unknown")
        places = (known["model"] + " on " + known["data"]).rename("place")
        methods = study.trials["method"].fillna("unknown").rename("method")
        for (place, method), trials in study.trials.groupby([places, methods]):
            label = _label(study.name, str(method), len(studies) > 1, several_methods)
            one = Series(study.name, str(method), label, trials, study.objectives)
            sorted_out.setdefault(str(place), []).append(one)
    if not sorted_out:
        empty = [Series(study.name, "unknown", study.name, study.trials, study.objectives) for study in studies]
        return [("no trials yet", empty)]
    order = {study.name: index for index, study in enumerate(studies)}
    return [
        (
            place,
            sorted(
                series, key=lambda one: (order[one.study], one.method in BASELINES, one.method != "pwfn", one.method)
            ),
        )
        for place, series in sorted(sorted_out.items())
    ]


def trials_alone(points: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of trials: without those of their earlier stages, which have no costs of their own."""
    return points.loc[[is_trial(name) for name in points["trial_id"]]]


def configurations(trials: pd.DataFrame) -> pd.DataFrame:
    """Merge finished trials that differ only in their seed: means, `num_seeds`, `trial_ids`, lowest and highest.

    A merged row keeps the identifier and the texts of its first trial, and is feasible if its means are. Trials without
    a result stay as they are.
    """
    groups = pd.Series(pd.factorize(_keys(trials))[0], index=trials.index)  # numbered in the order of appearance
    grouped = trials.groupby(groups)
    merged = trials[~groups.duplicated()].copy()
    means = trials.select_dtypes("float64").columns.difference(["number"])
    merged[means] = grouped[list(means)].mean().to_numpy()
    spread = [name for name in SPREAD if name in trials]
    lows, highs = grouped[spread].min().add_suffix("_low"), grouped[spread].max().add_suffix("_high")
    ids = grouped["trial_id"].agg(list).rename("trial_ids")
    further = pd.concat([lows, highs, ids.map(len).astype(float).rename("num_seeds"), ids], axis=1)
    return judged(pd.concat([merged, further.set_axis(merged.index)], axis=1))


def _keys(trials: pd.DataFrame) -> pd.Series[str]:
    """What the seeds of one configuration have in common; a trial without result or configuration is by itself."""
    stages = [PointName.read(trial_id).stage for trial_id in trials["trial_id"]]
    rows = zip(trials["state"], trials["config_json"], stages, strict=True)
    keys = [_without_seed(text, stage) if state in FINISHED else None for state, text, stage in rows]
    alone = [key or f"trial {trial_id}" for key, trial_id in zip(keys, trials["trial_id"], strict=True)]
    return pd.Series(alone, index=trials.index, dtype="str")


def _without_seed(config_json: str | float, stage: int | None) -> str | None:
    try:
        config = json.loads(config_json) if isinstance(config_json, str) else None
    except ValueError:
        return None
    if not isinstance(config, dict):
        return None
    same = {**{name: value for name, value in config.items() if name != "seed"}, "stage": stage}
    return json.dumps(same, sort_keys=True)


def _label(study: str, method: str, several_studies: bool, several_methods: bool) -> str:
    if several_methods:
        return f"{study} \N{MIDDLE DOT} {method}" if several_studies else method
    return study
