"""The values that a stage starts with."""

import numpy as np
import pytest

from pwfn.codebook import value_orders
from pwfn.config import QatConfig
from pwfn.errors import UserError
from pwfn.methods.kmeans.values import kmeans_values
from pwfn.methods.qat.codebook import distinct_candidates, first_values, power_candidates

WEIGHTS = np.random.default_rng(0).normal(0, 0.3, 2000).astype(np.float32)


def powers(**config):
    return power_candidates(QatConfig(values="powers_of_two", **config), float(np.abs(WEIGHTS).max()))


def test_free_values_are_those_of_kmeans():
    for importance in (None, np.square(WEIGHTS) + np.float32(0.1)):
        values = first_values(WEIGHTS, 6, importance, zero=False, candidates=None)
        assert np.array_equal(values, kmeans_values(WEIGHTS, 6, importance))


@pytest.mark.parametrize("num_values", [2, 3, 4, 9])
def test_one_value_is_zero_and_the_others_are_means_of_what_is_nearest(num_values):
    values = first_values(WEIGHTS, num_values, None, zero=True, candidates=None)
    assert len(values) == num_values
    assert (values == 0).sum() == 1
    place = np.abs(WEIGHTS[:, None] - values).argmin(axis=1)
    means = np.array([WEIGHTS[place == index].mean() for index in range(num_values)])
    off = np.abs(means - values)[values != 0]
    assert (off < 0.02).all()


@pytest.mark.parametrize("max_order", [1, 2, 3])
def test_candidates_are_all_sums_of_few_powers(max_order):
    candidates = powers(num_values=8, b=5, max_order=max_order)
    top = 2.0 ** np.ceil(np.log2(np.abs(WEIGHTS).max()))
    lattice = np.arange(-top * 32, top * 32 + 1, dtype=np.float32) / 32
    assert np.array_equal(candidates, lattice[value_orders(lattice) <= max_order])


def test_values_take_the_candidates_nearest_to_them_each_another_one():
    values = first_values(WEIGHTS, 12, None, zero=True, candidates=powers(num_values=12, b=7, max_order=1))
    assert len(values) == 12
    assert 0 in values
    assert value_orders(values).max() == 1
    taken = distinct_candidates(np.array([0.9, 1.0, 1.1], np.float32), np.array([1, 9, 5]), np.arange(4, dtype="f4"))
    assert taken.tolist() == [0, 1, 2]  # 1.0 has the most weights, then 1.1 takes 2, and 0.9 what is left


def test_too_few_candidates_are_named():
    with pytest.raises(UserError, match=r"64 values are asked for, but there are only \d+ sums of at most method.max_"):
        powers(num_values=64, b=3, max_order=1)
