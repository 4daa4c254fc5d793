"""The front and its hypervolume against their definitions."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.front import front, hypervolume, minimized_objectives, on_front

OBJECTIVES = {"val_top1": "maximize", "unique_values": "minimize"}
unhurried = settings(deadline=None, max_examples=60)
STATES = ["complete", "pruned", "failed"]

accuracies = st.one_of(st.sampled_from([0.1, 0.5, 0.5, 0.9]), st.floats(0, 1), st.just(float("nan")))
counts = st.one_of(st.integers(1, 5000).map(float), st.just(float("nan")))
rows = st.lists(st.tuples(accuracies, counts, st.sampled_from(STATES)), max_size=30)


def frame(rows: list[tuple[float, float, str]]) -> pd.DataFrame:
    columns = pd.DataFrame(rows, columns=["val_top1", "unique_values", "state"])
    columns = columns.astype({"val_top1": float, "unique_values": float, "state": str})
    return columns.assign(trial_id=[f"t{index}" for index in range(len(rows))])


def complete(*points: tuple[float, float]) -> pd.DataFrame:
    return frame([(accuracy, count, "complete") for accuracy, count in points])


def dominates(one: tuple[float, float, str], other: tuple[float, float, str]) -> bool:
    as_good = one[0] >= other[0] and one[1] <= other[1]
    return as_good and (one[0] > other[0] or one[1] < other[1])


@unhurried
@given(rows)
def test_the_front_is_what_nothing_dominates(rows: list[tuple[float, float, str]]) -> None:
    usable = [row for row in rows if row[2] == "complete" and not np.isnan(row[0] + row[1])]
    expected = [row in usable and not any(dominates(other, row) for other in usable) for row in rows]
    assert on_front(frame(rows), OBJECTIVES).tolist() == expected


@unhurried
@given(rows, st.randoms())
def test_the_front_does_not_depend_on_the_order(rows: list[tuple[float, float, str]], random: object) -> None:
    trials = frame(rows)
    shuffled = trials.sample(frac=1, random_state=random.randrange(2**32))  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(front(trials, OBJECTIVES), front(shuffled, OBJECTIVES))
    assert hypervolume(trials, OBJECTIVES).share == pytest.approx(hypervolume(shuffled, OBJECTIVES).share, abs=1e-12)


def test_costs_negate_what_is_maximised_and_only_that() -> None:
    trials = complete((0.25, 8))
    assert minimized_objectives(trials, OBJECTIVES).tolist() == [[-0.25, 3.0]]
    assert minimized_objectives(trials, {"val_top1": "minimize"}).tolist() == [[0.25]]


def test_the_front_is_ordered_by_values_and_keeps_ties() -> None:
    trials = complete((0.9, 64), (0.5, 2), (0.5, 2), (0.8, 64), (0.7, 16))
    assert front(trials, OBJECTIVES)["trial_id"].tolist() == ["t1", "t2", "t4", "t0"]


def test_three_objectives_keep_what_is_best_in_one() -> None:
    trials = complete((0.9, 64), (0.9, 64), (0.8, 64)).assign(sparsity=[0.1, 0.2, 0.5])
    objectives = {**OBJECTIVES, "sparsity": "maximize"}
    assert on_front(trials, objectives).tolist() == [False, True, True]


def test_zero_or_one_trial() -> None:
    assert front(complete(), OBJECTIVES).empty
    assert hypervolume(complete(), OBJECTIVES).share == 0
    assert on_front(complete((0.9, 7)), OBJECTIVES).tolist() == [True]


def test_a_count_of_zero_has_no_place() -> None:
    assert on_front(complete((0.9, 0), (0.5, 3)), OBJECTIVES).tolist() == [False, True]


# Hypervolume: the reference point is accuracy 0 and 4,096 values


def area(points: list[tuple[float, float]]) -> float:
    """The union of the boxes from each point to the reference, by strips between counts, over the whole box."""
    edges = sorted({min(np.log2(count), 12.0) for _, count in points} | {12.0})
    heights = [max(acc for acc, count in points if np.log2(count) <= left) for left in edges[:-1]]
    return float(np.dot(heights, np.diff(edges))) / 12


@unhurried
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10_000)), min_size=1, max_size=12))
def test_hypervolume_is_the_area(points: list[tuple[float, float]]) -> None:
    assert hypervolume(complete(*points), OBJECTIVES).share == pytest.approx(area(points), abs=1e-9)


@unhurried
@given(rows, st.tuples(st.floats(0, 1), st.integers(1, 5000).map(float)))
def test_hypervolume_never_falls_with_another_trial(
    rows: list[tuple[float, float, str]], point: tuple[float, float]
) -> None:
    before = hypervolume(frame(rows), OBJECTIVES).share
    after = hypervolume(frame([*rows, (*point, "complete")]), OBJECTIVES).share
    assert 0 <= before <= after + 1e-12 <= 1 + 2e-12


def test_hypervolume_of_known_fronts() -> None:
    assert hypervolume(complete((1.0, 1)), OBJECTIVES).share == 1
    assert hypervolume(complete((0.5, 64)), OBJECTIVES).share == pytest.approx(0.25)
    assert hypervolume(complete((1.0, 4096)), OBJECTIVES).share == 0
    assert hypervolume(complete((1.0, 9999)), OBJECTIVES).share == 0


def test_hypervolume_states_its_reference_point() -> None:
    assert hypervolume(complete((0.5, 64)), OBJECTIVES).box == (
        "reference point: validation top-1 0.00 %, distinct weight values 4096; "
        "ideal: validation top-1 100.00 %, distinct weight values 1; counts on a log2 scale"
    )


def test_a_metric_without_a_span_takes_the_trials_among_which_it_is_compared() -> None:
    sizes = complete((0.5, 1), (1.0, 1), (0.75, 1)).assign(size_bytes=[1024.0, 4096.0, 2048.0])
    objectives = {"val_top1": "maximize", "size_bytes": "minimize"}
    volume = hypervolume(sizes, objectives)
    assert volume.worst == {"val_top1": 0, "size_bytes": 4096}
    assert volume.share == pytest.approx((0.5 + 0.75) / 2)
    assert hypervolume(sizes[1:], objectives).share == pytest.approx(0.75)
    assert hypervolume(sizes[1:], objectives, among=sizes).share == pytest.approx(0.75 / 2)
    assert hypervolume(sizes[:1], objectives).share == 0


def test_five_thousand_trials_take_no_time() -> None:
    rng = np.random.default_rng(0)
    trials = complete(*zip(rng.random(5000), rng.integers(1, 4096, 5000), strict=True))
    start = time.perf_counter()
    assert 0 < len(front(trials, OBJECTIVES)) < 200
    assert 0.8 < hypervolume(trials, OBJECTIVES).share < 1
    assert time.perf_counter() - start < 2
