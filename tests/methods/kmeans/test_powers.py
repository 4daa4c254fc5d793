"""The nearest sum of few powers of two, against a search over all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwfn.codebook import value_orders
from pwfn.methods.kmeans.powers import round_to_order
from pwfn.methods.pwfn.clustering.candidates import sums_of_powers


@pytest.mark.parametrize("max_order", [1, 2, 3, 5])
def test_no_sum_of_as_few_powers_is_nearer(max_order):
    x = np.arange(-300, 301)
    sums = np.array([n for n in range(2**12) if n.bit_count() <= max_order]) / 4  # quarters, to 1024
    sums = np.concatenate([-sums[:0:-1], sums])
    distances = np.abs(sums[:, None] - x)
    rounded = round_to_order(x.astype(np.float32), max_order)
    assert (np.abs(rounded - x) == distances.min(axis=0)).all()
    assert np.isin(rounded, sums).all()


def test_ties_go_to_the_smaller_magnitude():
    values = np.array([3, -3, 0.75, 6, 1.5], dtype=np.float32)
    assert round_to_order(values, 1).tolist() == [2, -2, 0.5, 4, 1]


def test_pwfns_candidates_stay():
    candidates = sums_of_powers(7, 3)
    values = (np.concatenate([-candidates, candidates]) / 2**7).astype(np.float32)
    assert (round_to_order(values, 3) == values).all()


@given(st.floats(-1000, 1000, width=32), st.integers(1, 8))
def test_order_and_distance_are_bounded(value, max_order):
    rounded = round_to_order(np.array([value], dtype=np.float32), max_order)
    assert value_orders(rounded)[0] <= max_order
    assert abs(float(rounded[0]) - value) <= abs(value) * 2.0**-max_order
