"""The answer in plain words: how few values are enough, and whether a simpler method does as well with as many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.feasible import INFEASIBLE
from analysis.metrics import Array, show
from analysis.series import BASELINES, Series

TOLERANCES = (0.005, 0.01)
"""How far below the float network's validation accuracy still counts as close."""
CONFIDENCE = 0.95
Finding = Literal["beats", "does not beat", "not decided"]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Answer:
    """The fewest values within a tolerance of the float network, chosen on validation."""

    tolerance: float
    label: str
    point: pd.Series[Any]
    """A row of `Series.points`."""
    test_seeds: Array
    """Test accuracy of each seed."""

    @property
    def num_values(self) -> float:
        """The number of distinct values, a mean over seeds."""
        return float(self.point["unique_values"])


@dataclass(frozen=True)
class Comparison:
    """A method against a baseline, on the test images."""

    decision: Finding
    reason: str
    baseline: Answer | None
    difference: float = np.nan
    interval: tuple[float, float] = (np.nan, np.nan)


def answer(series: Sequence[Series], tolerance: float) -> Answer | None:
    """Find the fewest values whose validation accuracy is at most `tolerance` below float; ties: the more accurate."""
    found = []
    for one in series:
        points = _complete(one)
        close = points[points["val_top1"] >= points["float_val_top1"] - tolerance - _ROUNDING]
        found += [(one, point) for _, point in close.iterrows()]
    if not found:
        return None
    one, point = min(found, key=lambda pair: (pair[1]["unique_values"], -pair[1]["val_top1"]))
    return Answer(tolerance, one.label, point, _test_seeds(one, point))


def compare(subject: Answer, baselines: Sequence[Series]) -> Comparison:
    """Compare with the baseline that is best on validation with at most as many values.

    Where all baselines have more values, the rival is the one with the fewest. To be better than that one decides;
    to be worse does not, since the baseline with as few values is not known.
    """
    found = [(one, point) for one in baselines for _, point in _complete(one).iterrows()]
    if not found:
        known = f"no baseline with at most {_count(subject.num_values)} values has finished"
        return Comparison("not decided", known if baselines else "no baseline has been run", None)
    limit = max(subject.num_values, min(point["unique_values"] for _, point in found))
    allowed = [pair for pair in found if pair[1]["unique_values"] <= limit]
    one, point = max(allowed, key=lambda pair: pair[1]["val_top1"])
    result = _decided(subject, Answer(subject.tolerance, one.label, point, _test_seeds(one, point)))
    if limit > subject.num_values and result.decision == "does not beat":
        return dataclasses.replace(result, decision="not decided", reason="the baseline has more values")
    return result


def verdict(series: Sequence[Series]) -> list[str]:
    """Say in sentences what the series of one model and data set answer; never more than the seeds allow."""
    subjects = [one for one in series if one.method not in BASELINES] or list(series)
    baselines = [one for one in series if one not in subjects]
    if not any(len(_complete(one)) for one in series):
        kept = " and kept its bounds" if any((one.points["state"] == INFEASIBLE).any() for one in series) else ""
        return [f"No trial has finished{kept} yet, so there is no answer yet."]
    trained = list(dict.fromkeys(one.method for one in subjects))
    of_subject = f" of {' or '.join(trained)}" if baselines else ""
    sentences, earlier = [], None
    for tolerance in TOLERANCES if answer(subjects, TOLERANCES[-1]) else TOLERANCES[-1:]:
        found, rival = answer(subjects, tolerance), answer(baselines, tolerance)
        if found is None:
            close = f"within {_points(tolerance)} of the float network on validation"
            sentences.append(f"No finished trial{of_subject} is {close}.")
        elif earlier is not None and earlier.point["trial_id"] == found.point["trial_id"]:
            sentences.append(f"Nothing smaller{of_subject} is within {_points(tolerance)}.")
        else:
            sentences += [_answer_words(found, len(series) > 1), _comparison_words(found, baselines)]
        if rival is not None and (found is None or rival.num_values < found.num_values):
            sentences.append(_rival_words(rival))
        earlier = found
    return list(dict.fromkeys(sentences))


def _complete(one: Series) -> pd.DataFrame:
    needed = ["unique_values", "val_top1", "float_val_top1"]
    return one.points[(one.points["state"] == "complete") & one.points[needed].notna().all(axis=1)]


def _test_seeds(one: Series, point: pd.Series[Any]) -> Array:
    chosen = one.trials[one.trials["trial_id"].isin(list(point["trial_ids"]))]
    seeds: Array = chosen["test_top1"].to_numpy(np.float64)
    return np.asarray(seeds[np.isfinite(seeds)], dtype=np.float64)


def _decided(subject: Answer, baseline: Answer) -> Comparison:
    """Welch's 95 % interval (1947) of the difference of the mean test accuracies over seeds."""
    ours, theirs = subject.test_seeds, baseline.test_seeds
    if len(ours) == 0 or len(theirs) == 0:
        return Comparison("not decided", "a test accuracy is missing", baseline)
    difference = float(ours.mean() - theirs.mean())
    if len(ours) < 2 or len(theirs) < 2:
        who = "both have" if len(ours) < 2 and len(theirs) < 2 else f"{_one_seed(subject, baseline)} has"
        return Comparison("not decided", f"{who} one seed, so chance cannot be told apart", baseline, difference)
    low, high = _welch(ours, theirs)
    if low <= 0 < high:
        return Comparison("not decided", "the interval holds zero", baseline, difference, (low, high))
    decision: Finding = "beats" if low > 0 else "does not beat"
    return Comparison(decision, "", baseline, difference, (low, high))


def _one_seed(subject: Answer, baseline: Answer) -> str:
    return subject.label if len(subject.test_seeds) < 2 else baseline.label


def _welch(ours: Array, theirs: Array) -> tuple[float, float]:
    difference = float(ours.mean() - theirs.mean())
    parts = [seeds.var(ddof=1) / len(seeds) for seeds in (ours, theirs)]
    if sum(parts) < _ROUNDING**2:
        return difference, difference
    sizes = (len(ours) - 1, len(theirs) - 1)
    freedom = sum(parts) ** 2 / sum(part**2 / size for part, size in zip(parts, sizes, strict=True))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(sum(parts)))
    return difference - half, difference + half


def _answer_words(found: Answer, named: bool) -> str:
    enough = f"are the fewest that keep {found.label} within" if named else "are the fewest within"
    seeds = f" and its {len(found.test_seeds)} seeds" if found.point["num_seeds"] > 1 else ""
    return (
        f"{_count(found.num_values)} distinct values {enough} {_points(found.tolerance)} of the float network on "
        f"validation: {_test_words(found)} (trial {found.point['trial_id']}{seeds})."
    )


def _test_words(found: Answer) -> str:
    if len(found.test_seeds) == 0:
        return "its test accuracy is not recorded"
    test, float_test = found.test_seeds.mean(), found.point["float_test_top1"]
    reached = f"{_percent(test)} on the test images"
    if pd.isna(float_test):
        return reached
    gap = round(100 * (float_test - test), 2)
    if gap == 0:
        return f"{reached}, as much as the float network"
    return (
        f"{reached}, {abs(gap):.2f} points {'below' if gap > 0 else 'above'} the float network's {_percent(float_test)}"
    )


def _rival_words(rival: Answer) -> str:
    return (
        f"The baseline {rival.label} gets there with {_count(rival.num_values)} values: {_test_words(rival)} "
        f"(trial {rival.point['trial_id']})."
    )


def _comparison_words(found: Answer, baselines: Sequence[Series]) -> str:
    result = compare(found, baselines)
    best = result.baseline
    if best is None:
        return f"Against baselines: not decided, because {result.reason}."
    which = (
        "the smallest baseline"
        if best.num_values > found.num_values
        else "the best baseline with at most as many values"
    )
    against = f"{which}, {best.label} ({_count(best.num_values)} values, trial {best.point['trial_id']})"
    if not np.isfinite(result.difference):
        return f"Against {against}: not decided, because {result.reason}."
    by = f"{100 * result.difference:+.2f} points on the test images"
    if np.isfinite(result.interval[0]):
        low, high = (f"{100 * end:+.2f}" for end in result.interval)
        by += f", 95 % interval over {len(found.test_seeds)} and {len(best.test_seeds)} seeds {low} to {high}"
    if result.decision == "not decided":
        return f"Against {against}: not decided ({by}; {result.reason})."
    return f"This {result.decision} {against}: {by}."


def _percent(value: float) -> str:
    return show("test_top1", value)


def _points(tolerance: float) -> str:
    size = 100 * tolerance
    return f"{size:g} point" + ("" if size == 1 else "s")


def _count(value: float) -> str:
    return show("unique_values", value)
