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
MOST_SEEDS = 100
"""Most further seeds that a sentence advises."""
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
    def method(self) -> str:
        """The method that reached it."""
        return str(self.point["method"])

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
        if len(close):
            first = close[["unique_values", "val_top1"]].sort_values(
                ["unique_values", "val_top1"], ascending=[True, False]
            )
            found.append((one, close.loc[first.index[0]]))
    if not found:
        return None
    one, point = min(found, key=lambda pair: (pair[1]["unique_values"], -pair[1]["val_top1"]))
    return Answer(tolerance, one.label, point, _test_seeds(one, point))


def compare(subject: Answer, baselines: Sequence[Series]) -> Comparison:
    """Compare with the baseline that is best on validation with at most as many values.

    Where all baselines have more values, the rival is the one with the fewest. To be better than that one decides;
    to be worse does not, since the baseline with as few values is not known.
    """
    complete = [(one, points) for one in baselines if len(points := _complete(one))]
    if not complete:
        known = f"no baseline with at most {_count(subject.num_values)} values has finished"
        return Comparison("not decided", known if baselines else "no baseline has been run", None)
    limit = max(subject.num_values, min(points["unique_values"].min() for _, points in complete))
    allowed = [(one, few) for one, points in complete if len(few := points[points["unique_values"] <= limit])]
    best = [(one, few.loc[few["val_top1"].idxmax()]) for one, few in allowed]
    one, point = max(best, key=lambda pair: pair[1]["val_top1"])
    result = _decided(subject, Answer(subject.tolerance, one.label, point, _test_seeds(one, point)))
    if limit > subject.num_values and result.decision == "does not beat":
        return dataclasses.replace(result, decision="not decided", reason="the baseline has more values")
    return result


def verdict(series: Sequence[Series]) -> list[str]:
    """Say in at most three sentences what the series of one model and data set answer.

    Never more than the seeds allow: with one seed nothing is decided.
    """
    subjects = [one for one in series if one.method not in BASELINES] or list(series)
    baselines = [one for one in series if one not in subjects]
    if not any(len(_complete(one)) for one in series):
        kept = " and kept its bounds" if any((one.points["state"] == INFEASIBLE).any() for one in series) else ""
        return [f"No trial has finished{kept} yet, so there is no answer yet."]
    found = next((found for each in TOLERANCES if (found := answer(subjects, each))), None)
    if found is None:
        rival = answer(baselines, TOLERANCES[-1])
        return [_nothing_words(subjects, bool(baselines)), *([_rival_words(rival)] if rival else [])]
    against = [] if found.method in BASELINES else [_comparison_words(found, baselines)]
    return [_answer_words(found, len(series) > 1), *against, _further(found, subjects, baselines)]


def _further(found: Answer, subjects: Sequence[Series], baselines: Sequence[Series]) -> str:
    """The third sentence: what fewer values reach, of the methods in question and of baselines."""
    rival = answer(baselines, found.tolerance)
    if rival is not None and rival.num_values < found.num_values:
        return _rival_words(rival)
    wider, rival = answer(subjects, TOLERANCES[-1]), answer(baselines, TOLERANCES[-1])
    assert wider is not None, "what is within the narrower tolerance is within the wider one"
    if rival is not None and rival.num_values < wider.num_values:
        return _rival_words(rival)
    if wider.point["trial_id"] == found.point["trial_id"]:
        return f"No fewer values are within {_points(TOLERANCES[-1])}."
    return f"Within {_points(wider.tolerance)}, {_counted(wider)} values are enough: {_test_words(wider)}."


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
        return Comparison("not decided", f"{who} one seed", baseline, difference)
    low, high = _welch(ours, theirs)
    if low <= 0 < high:
        return Comparison("not decided", "the interval holds zero", baseline, difference, (low, high))
    decision: Finding = "beats" if low > 0 else "does not beat"
    return Comparison(decision, "", baseline, difference, (low, high))


def _one_seed(subject: Answer, baseline: Answer) -> str:
    return subject.label if len(subject.test_seeds) < 2 else baseline.label


def _welch(ours: Array, theirs: Array, more: int = 0) -> tuple[float, float]:
    """The interval as it is, or as it would be with so many `more` seeds of both that spread as much."""
    difference = float(ours.mean() - theirs.mean())
    nums = (len(ours) + more, len(theirs) + more)
    parts = [seeds.var(ddof=1) / num for seeds, num in zip((ours, theirs), nums, strict=True)]
    if sum(parts) < _ROUNDING**2:
        return difference, difference
    freedom = sum(parts) ** 2 / sum(part**2 / (num - 1) for part, num in zip(parts, nums, strict=True))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(sum(parts)))
    return difference - half, difference + half


def _nothing_words(subjects: Sequence[Series], are_named: bool) -> str:
    names = f" of {' or '.join(dict.fromkeys(one.method for one in subjects))}" if are_named else ""
    close = f"within {_points(TOLERANCES[-1])} of the float network on validation"
    points = pd.concat([_complete(one) for one in subjects])
    if points.empty:
        return f"No finished trial{names} is {close}."
    best = points.iloc[int(points["val_top1"].argmax())]
    gap = 100 * (best["float_val_top1"] - best["val_top1"])
    return (
        f"No finished trial{names} is {close}; the best, with {_count(best['unique_values'])} values, is {gap:.2f} "
        f"points below (trial {best['trial_id']})."
    )


def _answer_words(found: Answer, is_named: bool) -> str:
    enough = f"are the fewest that keep {found.label} within" if is_named else "are the fewest within"
    share = found.point["coverage"]
    covered = "" if pd.isna(share) else f", {show('coverage', share)} of the parameters"
    return (
        f"{_counted(found)} distinct values {enough} {_points(found.tolerance)} of the float network on validation: "
        f"{_test_words(found)} (trial {found.point['trial_id']}{covered})."
    )


def _test_words(found: Answer) -> str:
    if len(found.test_seeds) == 0:
        return "its test accuracy is not recorded"
    test, float_test = found.test_seeds.mean(), found.point["float_test_top1"]
    reached = f"{_percent(test)} on the test images{_interval_words(found.test_seeds)}"
    if pd.isna(float_test):
        return reached
    gap = round(100 * (float_test - test), 2)
    if gap == 0:
        return f"{reached}, as much as float"
    return f"{reached}, {abs(gap):.2f} points {'below' if gap > 0 else 'above'} float"


def _interval_words(seeds: Array) -> str:
    """Student's 95 % interval (1908) of the mean over seeds; one seed has none."""
    if len(seeds) < 2:
        return " (one seed)"
    if np.ptp(seeds) < _ROUNDING:
        return f" (in each of {len(seeds)} seeds)"
    half = float(stdtrit(len(seeds) - 1, (1 + CONFIDENCE) / 2) * seeds.std(ddof=1) / np.sqrt(len(seeds)))
    low, high = max(0.0, float(seeds.mean()) - half), min(1.0, float(seeds.mean()) + half)
    return f" (95 % interval over {len(seeds)} seeds {100 * low:.2f} to {100 * high:.2f})"


def _rival_words(rival: Answer) -> str:
    return (
        f"The baseline {rival.label} is within {_points(rival.tolerance)} with {_counted(rival)} values: "
        f"{_test_words(rival)} (trial {rival.point['trial_id']})."
    )


def _comparison_words(found: Answer, baselines: Sequence[Series]) -> str:
    result = compare(found, baselines)
    best = result.baseline
    if best is None:
        return f"Against baselines nothing is decided, because {result.reason}."
    few = f"with at most {_count(found.num_values)} values"
    which = "the smallest baseline" if best.num_values > found.num_values else f"the best baseline {few}"
    against = f"{which}, {best.label} ({_counted(best)} values, trial {best.point['trial_id']})"
    if not np.isfinite(result.difference):
        return f"Against {against}, nothing is decided, because {result.reason}."
    by = f"{100 * result.difference:+.2f} points on test"
    if np.isfinite(result.interval[0]):
        low, high = (f"{100 * end:+.2f}" for end in result.interval)
        by += f", 95 % interval over {len(found.test_seeds)} and {len(best.test_seeds)} seeds {low} to {high}"
    if result.decision == "not decided":
        return f"Against {against}, nothing is decided: {by}; {result.reason}{_more_words(found, best)}."
    return f"This {result.decision} {against}: {by}."


def _more_words(found: Answer, baseline: Answer) -> str:
    """Say how many more seeds would decide, if differences and spreads stay as they are."""
    if min(len(found.test_seeds), len(baseline.test_seeds)) < 2:
        return "; a second would give an interval"
    more = seeds_to_decide(found.test_seeds, baseline.test_seeds)
    if more is None:
        return f"; at this difference more than {MOST_SEEDS} seeds of each would be needed"
    if more == 0:
        return ""
    return f"; at this difference {more} more {'seed' if more == 1 else 'seeds'} of each would decide"


def seeds_to_decide(ours: Array, theirs: Array) -> int | None:
    """Return how many more seeds of both leave zero out of Welch's interval, if means and variances stay.

    None: more than `MOST_SEEDS`.
    """
    for more in range(MOST_SEEDS + 1):
        low, high = _welch(ours, theirs, more)
        if not low <= 0 < high:
            return more
    return None


def _counted(found: Answer) -> str:
    """The number of values of the seeds, from the fewest to the most where they differ."""
    low, high = (_count(found.point.get(f"unique_values_{end}", found.num_values)) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"


def _percent(value: float) -> str:
    return show("test_top1", value)


def _points(tolerance: float) -> str:
    size = 100 * tolerance
    return f"{size:g} point" + ("" if size == 1 else "s")


def _count(value: float) -> str:
    return show("unique_values", value)
