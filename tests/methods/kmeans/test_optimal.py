"""The dynamic program against every possible partition."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwfn.methods.kmeans.optimal import optimal_cuts


def cost(x, w, starts):
    """Weighted squared errors of the clusters that begin at `starts`, by their definition."""
    total = 0.0
    for part in np.split(np.arange(len(x)), list(starts)[1:]):
        mean = np.average(x[part], weights=w[part])
        total += (w[part] * (x[part] - mean) ** 2).sum()
    return total


def least_cost(x, w, num_clusters):
    partitions = ((0, *cuts) for cuts in combinations(range(1, len(x)), num_clusters - 1))
    return min(cost(x, w, starts) for starts in partitions)


points = st.lists(
    st.tuples(st.floats(-4, 4, width=16), st.floats(0.125, 1000, width=16)),
    min_size=1,
    max_size=9,
    unique_by=lambda point: point[0],
)


@given(points, st.data())
def test_no_partition_is_better(points, data):
    x, w = np.array(sorted(points)).T
    num_clusters = data.draw(st.integers(1, len(x)))
    starts = optimal_cuts(w, w * x, num_clusters)
    assert starts[0] == 0
    assert len(starts) == num_clusters
    assert (np.diff(starts) > 0).all()
    best = least_cost(x, w, num_clusters)
    assert cost(x, w, starts) == pytest.approx(best, rel=1e-9, abs=1e-9 * (w * x**2).sum())


def test_every_point_alone_and_all_together():
    x, w = np.array([1.0, 2, 4, 8]), np.array([1.0, 2, 1, 3])
    assert optimal_cuts(w, w * x, 4).tolist() == [0, 1, 2, 3]
    assert optimal_cuts(w, w * x, 1).tolist() == [0]


def test_weights_decide_where_to_cut():
    x = np.array([0.0, 1, 2])
    for w, start in (([1.0, 1, 9], 2), ([9.0, 1, 1], 1)):
        assert optimal_cuts(np.array(w), np.array(w) * x, 2).tolist() == [0, start]


def test_hundreds_of_points_against_the_quadratic_program():
    generator = np.random.default_rng(0)
    x = np.sort(generator.laplace(size=300))
    w = generator.exponential(size=300) ** 3
    mass, first, second = (np.append(0, (w * x**power).cumsum()) for power in range(3))
    starts, ends = np.triu_indices(301, 1)
    of_cluster = np.full((301, 301), np.inf)
    of_cluster[starts, ends] = (
        second[ends] - second[starts] - (first[ends] - first[starts]) ** 2 / (mass[ends] - mass[starts])
    )
    best = of_cluster[0]
    for num_clusters in range(1, 41):
        assert cost(x, w, optimal_cuts(w, w * x, num_clusters)) == pytest.approx(best[-1], rel=1e-9)
        best = (best[:, None] + of_cluster).min(axis=0)
