"""Groups trials for comparison: by model and data set, then by study and method; merges seeds of one configuration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pandas as pd

from analysis.feasible import FINISHED, judged
from analysis.front import Objectives
from analysis.metrics import SPREAD
from analysis.study import Study
from pwfn.naming import PointName, is_trial

BASELINES = ("kmeans", "msq", "gpfq")
"""Methods that do not train: what a method that trains has to beat."""
LONGEST_NAME = 25
"""Most characters of a name in a legend."""


@dataclass(frozen=True, eq=False)
class Series:
    """The trials of one method of one study on one model and data set, with the objectives that decide its front."""

    study: str
    method: str
    label: str
    """Name in the report: the study, the method or both, whichever tells it from the other series."""
    short: str
    """The same without what the names of all studies in the figure have in common, for legends."""
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
    return list(_panels(tuple(studies)))


@lru_cache(maxsize=1)  # page, tables and verdicts of one report ask for the same
def _panels(studies: tuple[Study, ...]) -> list[Panel]:
    several_methods = any(study.trials["method"].nunique() > 1 for study in studies)
    sorted_out: dict[str, list[Series]] = {}
    for study in studies:
        known = study.trials[["model", "data"]].fillna("unknown")
        places = (known["model"] + " on " + known["data"]).rename("place")
        methods = study.trials["method"].fillna("unknown").rename("method")
        for (place, method), trials in study.trials.groupby([places, methods]):
            label = _label(study.name, str(method), len(studies) > 1, several_methods)
            one = Series(study.name, str(method), label, label, trials, study.objectives)
            sorted_out.setdefault(str(place), []).append(one)
    if not sorted_out:
        empty = [
            Series(study.name, "unknown", study.name, study.name, study.trials, study.objectives) for study in studies
        ]
        return [("no trials yet", empty)]
    order = {study.name: index for index, study in enumerate(studies)}
    return [
        (
            place,
            sorted(
                _shortened(series, len(studies) > 1, several_methods),
                key=lambda one: (order[one.study], one.method in BASELINES, one.method != "pwfn", one.method),
            ),
        )
        for place, series in sorted(sorted_out.items())
    ]


def short_names(names: Sequence[str]) -> list[str]:
    """Leave out the words at both ends that all names share, and the middle of long names; else keep all as they are.

    Words are what stands between underscores: `kmeans_cifar10` and `wfn_cifar10` become `kmeans` and `wfn`.
    """
    words = [name.split("_") for name in names]
    while len(words) > 1 and all(len(each) > 1 for each in words) and len({each[-1] for each in words}) == 1:
        words = [each[:-1] for each in words]
    while len(words) > 1 and all(len(each) > 1 for each in words) and len({each[0] for each in words}) == 1:
        words = [each[1:] for each in words]
    short = [_clipped("_".join(each)) for each in words]
    return short if len(set(short)) == len(set(names)) else list(names)


def _clipped(name: str) -> str:
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _shortened(series: Sequence[Series], several_studies: bool, several_methods: bool) -> list[Series]:
    names = list(dict.fromkeys(one.study for one in series))
    short = dict(zip(names, short_names(names), strict=True))
    return [
        dataclasses.replace(one, short=_label(short[one.study], one.method, several_studies, several_methods))
        for one in series
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
