"""The verdict: the right trial, the right baseline, and no more certainty than the seeds give."""

from pathlib import Path

import numpy as np
import pytest
from recorded import METHODS, SMALL, Record, Rows, configured, seeds
from scipy import stats

import analysis
from analysis.series import panels
from analysis.verdict import answer, compare, seeds_to_decide, verdict


def said(record: Record, tmp_path: Path, rows: Rows) -> str:
    record("digits", rows)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    return " ".join(verdict(series))


def test_it_beats_where_the_interval_leaves_zero_out(record: Record, tmp_path: Path) -> None:
    text = said(record, tmp_path, METHODS)
    assert text == (
        "40 distinct values are the fewest that keep pwfn within 0.5 points of the float network on validation: "
        "97.70 % on the test images (95 % interval over 3 seeds 97.45 to 97.95), 0.20 points above float (trial t3). "
        "This beats the best baseline with at most 40 values, kmeans (16 values, trial t9): +1.60 points on test, "
        "95 % interval over 3 and 3 seeds +1.37 to +1.83. "
        "Within 1 point, 16 values are enough: 97.20 % on the test images (95 % interval over 3 seeds 96.70 to 97.70), "
        "0.30 points below float."
    )


def test_the_interval_of_the_mean_is_students(record: Record, tmp_path: Path) -> None:
    sample = np.array([0.970, 0.972, 0.974])
    low, high = stats.t.interval(0.95, 2, sample.mean(), stats.sem(sample))
    assert f"over 3 seeds {100 * low:.2f} to {100 * high:.2f}" in said(record, tmp_path, METHODS)


def test_counts_are_whole_numbers_and_say_where_seeds_differ(record: Record, tmp_path: Path) -> None:
    rows = seeds(3, 16, 0.98, [0.97, 0.971, 0.972])
    assert said(record, tmp_path, [{**rows[0], "unique_values": 15}, *rows[1:]]).startswith("15 to 16 distinct values")


def test_it_says_how_many_more_seeds_would_decide() -> None:
    ours, theirs = np.array([0.960, 0.966, 0.972]), np.array([0.959, 0.961, 0.963])
    more = seeds_to_decide(ours, theirs)
    assert more is not None

    def excludes_zero(num: int) -> bool:
        spreads = [each.std(ddof=1) for each in (ours, theirs)]
        found = stats.ttest_ind_from_stats(
            ours.mean(), spreads[0], num, theirs.mean(), spreads[1], num, equal_var=False
        )
        return bool(found.pvalue < 0.05)

    assert excludes_zero(3 + more)
    assert not excludes_zero(3 + more - 1)
    assert seeds_to_decide(ours, ours) is None


def test_there_are_at_most_three_sentences(record: Record, tmp_path: Path) -> None:
    record("digits", METHODS)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    assert len(verdict(series)) == 3
    assert len(verdict(series[1:])) == 1, "a baseline alone is not compared with itself"


def test_the_interval_is_welchs(record: Record, tmp_path: Path) -> None:
    record("digits", METHODS)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    found = answer(series[:1], 0.01)
    assert found is not None
    result = compare(found, series[1:])
    expected = stats.ttest_ind([0.970, 0.972, 0.974], [0.960, 0.961, 0.962], equal_var=False).confidence_interval(0.95)
    assert result.interval == pytest.approx((expected.low, expected.high))
    assert result.decision == "beats"


@pytest.mark.parametrize(
    ("tests", "decision"),
    [
        ([0.97, 0.97, 0.97], "does not beat"),  # equal in every seed: no difference
        ([0.95, 0.951, 0.952], "beats"),
        ([0.99, 0.991, 0.992], "does not beat"),
        ([0.96, 0.97, 0.98], "not decided"),
        ([0.95], "not decided"),
    ],
)
def test_decisions(tests: list[float], decision: str, record: Record, tmp_path: Path) -> None:
    rows = [*seeds(3, 16, 0.98, [0.97, 0.97, 0.97]), *seeds(16, 16, 0.97, tests, "kmeans")]
    record("digits", rows)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    found = answer(series[:1], 0.01)
    assert found is not None
    assert compare(found, series[1:]).decision == decision


def test_one_seed_decides_nothing(record: Record, tmp_path: Path) -> None:
    rows = [
        {**configured(3), "unique_values": 16, "val_top1": 0.985, "test_top1": 0.97},
        {**configured(4, method="kmeans"), "unique_values": 12, "val_top1": 0.9, "test_top1": 0.5},
    ]
    text = said(record, tmp_path, rows)
    assert "nothing is decided: +47.00 points on test; both have one seed; a second would give an interval" in text
    assert text.endswith("No fewer values are within 1 point.")


@pytest.mark.parametrize(
    ("tests", "decision"),
    [([0.95, 0.951, 0.952], "beats"), ([0.99, 0.991, 0.992], "not decided"), ([0.96, 0.97, 0.98], "not decided")],
)
def test_where_every_baseline_has_more_values_only_a_win_decides(
    tests: list[float], decision: str, record: Record, tmp_path: Path
) -> None:
    rows = [
        *seeds(3, 16, 0.985, [0.97, 0.971, 0.972]),
        *seeds(20, 20, 0.97, tests, "kmeans"),
        *seeds(30, 40, 0.98, [0.3, 0.4, 0.5], "kmeans"),
    ]
    record("digits", rows)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    found = answer(series[:1], 0.01)
    assert found is not None
    result = compare(found, series[1:])
    assert result.decision == decision
    assert result.baseline is not None
    assert result.baseline.num_values == 20
    assert "the smallest baseline, kmeans (20 values, trial t3)" in " ".join(verdict(series))


def test_a_baseline_without_result_is_none(record: Record, tmp_path: Path) -> None:
    rows = [
        {**configured(3), "unique_values": 16, "val_top1": 0.985, "test_top1": 0.97},
        {**configured(4, method="kmeans"), "state": "failed"},
    ]
    assert "nothing is decided, because no baseline with at most 16 values has finished." in said(
        record, tmp_path, rows
    )


def test_a_baseline_that_needs_fewer_is_named(record: Record, tmp_path: Path) -> None:
    rows = [
        {**configured(3), "unique_values": 40, "val_top1": 0.985, "test_top1": 0.975},
        {**configured(16, method="kmeans"), "unique_values": 11, "val_top1": 0.981, "test_top1": 0.97},
        {**configured(8, method="kmeans"), "unique_values": 7, "val_top1": 0.976, "test_top1": 0.965},
    ]
    text = said(record, tmp_path, rows)
    assert "on validation: 97.50 % on the test images (one seed), as much as float (trial t0)." in text
    assert text.endswith(
        "The baseline kmeans is within 0.5 points with 11 values: 97.00 % on the test images (one seed), 0.50 points "
        "below float (trial t1)."
    )
    text = said(record, tmp_path, [{**rows[0], "val_top1": 0.97}, *rows[1:]])
    assert text.startswith(
        "No finished trial of pwfn is within 1 point of the float network on validation; the best, with 40 values, is "
        "1.50 points below (trial t0). The baseline kmeans is within 1 point with 7 values: 96.50 % on the test images"
    )


def test_a_baseline_that_needs_fewer_within_one_point_is_named_too(record: Record, tmp_path: Path) -> None:
    rows = [
        {**configured(3), "unique_values": 16, "val_top1": 0.985, "test_top1": 0.975},
        {**configured(16, method="kmeans"), "unique_values": 16, "val_top1": 0.981, "test_top1": 0.97},
        {**configured(8, method="kmeans"), "unique_values": 8, "val_top1": 0.976, "test_top1": 0.965},
    ]
    assert "The baseline kmeans is within 1 point with 8 values" in said(record, tmp_path, rows)


def test_nothing_close_and_nothing_at_all(record: Record, tmp_path: Path) -> None:
    text = said(record, tmp_path, SMALL[:1])
    assert text == (
        "No finished trial is within 1 point of the float network on validation; the best, with 4 values, is 8.50 "
        "points below (trial t0)."
    )
    assert said(record, tmp_path, [{"state": "failed"}]) != text


def test_unfinished_trials_answer_nothing(record: Record, tmp_path: Path) -> None:
    rows: Rows = [{"state": "pruned", "val_top1": 0.99, "unique_values": 2}]
    assert said(record, tmp_path, rows) == "No trial has finished yet, so there is no answer yet."


def test_test_accuracy_never_chooses(record: Record, tmp_path: Path) -> None:
    rows: Rows = [
        {"val_top1": 0.985, "test_top1": 0.90, "unique_values": 16},
        {"val_top1": 0.984, "test_top1": 0.99, "unique_values": 16},
    ]
    record("digits", rows)
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    found = answer(series, 0.005)
    assert found is not None
    assert found.point["trial_id"] == "t0"
    assert np.array_equal(found.test_seeds, [0.90])
