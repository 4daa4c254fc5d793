"""The order of points under several objectives, against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwfn.search.ranking import depths, rank

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20)


def dominates(one, other):
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


@given(POINTS)
def test_a_point_never_comes_before_one_that_dominates_it(points):
    places = rank(np.array(points, dtype=float))
    assert sorted(places) == list(range(len(points)))
    for one, place in zip(points, places, strict=True):
        for other, other_place in zip(points, places, strict=True):
            assert not (dominates(one, other) and other_place < place)


@given(POINTS)
def test_the_scale_of_an_objective_does_not_matter(points):
    values = np.array(points, dtype=float)
    stretched = np.stack([np.exp(values[:, 0]), 1e-3 * values[:, 1]], axis=1)
    assert np.array_equal(rank(values), rank(stretched))


def test_every_beginning_of_a_front_is_spread_out():
    front = np.array([[i, 8 - i] for i in range(9)], dtype=float)
    assert np.argsort(rank(front)).tolist()[:5] == [0, 8, 4, 2, 6]


def test_points_that_violate_a_constraint_come_last_the_least_violation_first():
    values = np.array([[0.0, 0.0], [5.0, 5.0], [1.0, 1.0], [6.0, 6.0]])
    assert rank(values, np.array([0.2, 0.0, 0.1, 0.0])).tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize("violations", [None, np.array([1.0])])
def test_a_single_point_is_the_best(violations):
    assert rank(np.array([[3.0, 4.0]]), violations).tolist() == [0]


def test_no_points_have_no_order():
    assert rank(np.empty((0, 2))).tolist() == []


def test_gaps_are_measured_among_all_points_that_are_given():
    front = np.array([[i, 20 - i] for i in range(21)], dtype=float)
    chosen = front[[0, 1, 2, 12, 20]]
    assert np.argsort(rank(chosen, among=front)).tolist()[:3] == [0, 4, 3]
    assert np.argsort(rank(chosen)).tolist()[:3] == [0, 4, 2]  # by their own ranks they are evenly spaced


@given(POINTS)
def test_each_front_is_what_none_dominates_once_those_before_it_are_gone(points):
    fronts = depths(np.array(points, dtype=float), np.zeros(len(points)))
    for front in range(fronts.max() + 1):
        left = [point for point, depth in zip(points, fronts, strict=True) if depth >= front]
        expected = {point for point in left if not any(dominates(other, point) for other in left)}
        assert {point for point, depth in zip(points, fronts, strict=True) if depth == front} == expected


def test_fronts_of_points_that_violate_a_constraint_come_behind_all_others():
    values = np.array([[0.0, 0.0], [5.0, 5.0], [1.0, 1.0], [6.0, 6.0], [0.0, 9.0]])
    order = depths(values, np.array([0.2, 0.0, 0.1, 0.0, 0.1]))
    assert order.argsort(kind="stable").tolist() == [1, 3, 2, 4, 0]
    assert order[2] == order[4]
