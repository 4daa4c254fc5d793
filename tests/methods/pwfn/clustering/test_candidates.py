"""The candidate set against the sums of every choice of powers, and the properties it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_clustering import slow_candidates

from pwfn.methods.pwfn.clustering.candidates import candidates


@given(
    order=st.integers(1, 4),
    b=st.integers(1, 8),
    largest=st.one_of(st.floats(0, 64), st.integers(0, 64).map(float), st.integers(-9, 6).map(lambda e: 2.0**e)),
)
def test_equals_sums_of_every_choice(order: int, b: int, largest: float) -> None:
    np.testing.assert_array_equal(candidates(order, largest * 2.0**b) / 2.0**b, slow_candidates(order, largest, b))


@given(order=st.integers(1, 8), largest=st.floats(0, 2.0**15))
def test_sorted_symmetric_with_zero_and_within_the_largest(order: int, largest: float) -> None:
    found = candidates(order, largest)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, -found[::-1])
    assert 0 in found
    assert np.abs(found).max() <= largest


@pytest.mark.parametrize(
    ("below", "sizes"),
    [(1, (15, 57, 127, 197)), (2, (17, 73, 185, 325)), (4, (19, 91, 259, 511)), (8, (21, 111, 351, 771))],
)
def test_sizes_of_the_paper_setting(below: float, sizes: tuple[int, ...]) -> None:
    assert tuple(len(candidates(order, below * 2**7 - 1)) for order in (1, 2, 3, 4)) == sizes


def test_a_power_of_two_is_reached_only_as_twice_the_largest_power() -> None:
    assert 4 not in candidates(1, 4.0)
    assert 4 in candidates(2, 4.0)
    assert 4 in candidates(1, 4.5)


@pytest.mark.parametrize("largest", [0.0, 1e-30, 0.5, 1.0])
def test_only_zero_when_the_base_is_empty(largest: float) -> None:
    assert candidates(4, largest).tolist() == [0]
