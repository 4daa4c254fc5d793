"""The codebook of given weights: optimal where that can be checked, close to it where there are more."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwfn.methods.kmeans.optimal import optimal_cuts
from pwfn.methods.kmeans.values import kmeans_values, nearest_values


def cost(weights, values, importance=None):
    errors = (weights.astype(np.float64) - nearest_values(weights, values)) ** 2
    return (errors if importance is None else errors * importance).sum()


def optimum(weights, num_values, importance=None):
    """The least cost, from the optimal cuts of the weights themselves, ungrouped."""
    order = weights.argsort()
    x, w = weights[order].astype(np.float64), np.ones(len(weights)) if importance is None else importance[order]
    starts = optimal_cuts(w.astype(np.float64), w * x, num_values)
    means = np.add.reduceat(w * x, starts) / np.add.reduceat(w, starts)
    return (w * (x - np.repeat(means, np.diff(starts, append=len(x)))) ** 2).sum()


@given(
    st.lists(st.tuples(st.floats(-2, 2, width=16), st.floats(0.5, 100, width=16)), min_size=1, max_size=40),
    st.integers(1, 8),
    st.booleans(),
)
def test_small_inputs_with_equal_weights_get_the_optimum(points, num_values, weighted):
    weights, importance = np.array(points, dtype=np.float32).T
    values = kmeans_values(weights, num_values, importance if weighted else None)
    w = importance if weighted else np.ones_like(importance)
    assert values.dtype == np.float32
    assert (np.diff(values) > 0).all()
    distinct, index = np.unique(weights, return_inverse=True)
    if len(distinct) <= num_values:
        assert values.tolist() == distinct.tolist()
        return
    assert len(values) <= num_values
    best = optimum(weights, num_values, w)
    # The values are rounded to float32; a cost of nothing but that rounding is none.
    assert cost(weights, values, w) == pytest.approx(best, rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_more_weights_than_groups_come_close_to_the_optimum(weighted):
    generator = np.random.default_rng(0)
    weights = generator.laplace(scale=0.05, size=150_000).astype(np.float32)
    weights[:20] *= 30  # a few far out
    importance = (generator.exponential(size=len(weights)) ** 3).astype(np.float32) if weighted else None
    values = kmeans_values(weights, 12, importance)
    assert len(values) == 12
    excess = cost(weights, values, importance) / optimum(weights, 12, importance) - 1
    assert -1e-6 < excess < 1e-5


def test_every_value_is_the_mean_of_its_weights():
    generator = np.random.default_rng(1)
    weights = generator.normal(size=100_000).astype(np.float32)
    importance = generator.random(len(weights), dtype=np.float32) + np.float32(0.01)
    values = kmeans_values(weights, 32, importance)
    chosen = nearest_values(weights, values)
    means = [np.average(weights[chosen == value], weights=importance[chosen == value]) for value in values]
    assert np.allclose(values, means, rtol=1e-5, atol=1e-6)


def test_the_order_of_the_weights_does_not_matter():
    generator = np.random.default_rng(2)
    weights = generator.normal(size=5000).astype(np.float32)
    order = generator.permutation(len(weights))
    assert np.array_equal(kmeans_values(weights, 9), kmeans_values(weights[order], 9))


def test_important_weights_pull_the_values():
    weights = np.array([0, 1, 10, 11], dtype=np.float32)
    assert kmeans_values(weights, 2).tolist() == [0.5, 10.5]
    assert kmeans_values(weights, 2, np.array([3, 1, 1, 3], dtype=np.float32)).tolist() == [0.25, 10.75]


def test_ties_go_to_the_smaller_value():
    values = np.array([-1, 0.5, 1], dtype=np.float32)
    weights = np.array([-0.25, np.nextafter(np.float32(-0.25), np.float32(0)), 0.75, -7, 7], dtype=np.float32)
    assert nearest_values(weights, values).tolist() == [-1, 0.5, 0.5, -1, 1]


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.lists(st.floats(-1, 1, width=32), max_size=20))
def test_nearest_is_nearest(values, weights):
    values, weights = np.unique(np.float32(values)) + np.float32(0), np.array(weights, dtype=np.float32)
    ascending = [Fraction(value) for value in values.tolist()]  # min returns the first of several
    nearest = [min(ascending, key=lambda value: abs(value - Fraction(weight))) for weight in weights.tolist()]
    assert nearest_values(weights, values).tolist() == nearest


def test_a_negative_zero_becomes_zero():
    values = kmeans_values(np.array([-0.0, 1], dtype=np.float32), 2)
    assert not np.signbit(values).any()
