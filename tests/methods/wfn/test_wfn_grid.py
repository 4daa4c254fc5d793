"""WFN's proposals: sizes, spacing, rounding to signed powers of two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_wfn import slow_centres

from pwfn.methods.wfn import centres, round_to_powers

PAPER = {"zero_distance": 2.0**-7, "largest": 1.0}


@pytest.mark.parametrize(("order", "size"), [(0, 17), (1, 119), (2, 337)])
def test_sizes_at_one_percent(order, size):
    assert len(centres(order, spacing=0.01, **PAPER)) == size


@pytest.mark.parametrize(("spacing", "size"), [(0.0075, 649), (0.01, 487), (0.015, 325)])
def test_at_a_high_order_no_two_grid_values_meet(spacing, size):
    """2 (floor(ln(128) / ln((1 + a)/(1 - a))) + 1) + 1 values: the first of them is the zero distance itself."""
    assert len(centres(20, spacing=spacing, **PAPER)) == size


@given(
    order=st.integers(0, 8),
    spacing=st.floats(0.004, 5),
    zero_distance=st.floats(2**-10, 0.5),
    largest=st.floats(0, 8),
)
def test_equals_the_slow_transcription(order, spacing, zero_distance, largest):
    found = centres(order, spacing=spacing, zero_distance=zero_distance, largest=largest)
    assert found.tolist() == slow_centres(order, spacing, zero_distance, largest).tolist()


@given(order=st.integers(0, 20), spacing=st.floats(0.001, 5), largest=st.floats(0, 1e30))
def test_is_symmetric_sorted_holds_zero_and_is_exact_in_float32(order, spacing, largest):
    found = centres(order, spacing=spacing, zero_distance=2.0**-7, largest=largest)
    assert (np.diff(found) > 0).all()
    assert (found == -found[::-1]).all()
    assert 0 in found
    assert (found.astype(np.float32) == found).all()


def test_below_the_zero_distance_there_is_only_zero():
    assert centres(3, spacing=0.01, zero_distance=0.01, largest=0.0099).tolist() == [0]
    assert centres(0, spacing=0.01, zero_distance=0.0078125, largest=0.0078125).tolist() == [-(2**-7), 0, 2**-7]


def test_a_spacing_of_one_and_more_leaves_the_zero_distance_and_zero():
    assert centres(0, spacing=7.0, zero_distance=0.25, largest=4.0).tolist() == [-0.25, 0, 0.25]


@pytest.mark.parametrize(
    ("order", "rounded"),
    [
        (0, [0.0, 0.5, 0.5, 1.0, 1.0]),
        (1, [0.0, 0.5, 0.625, 0.75, 1.0]),  # 0.76 is 1 - 0.25: terms are signed
        (2, [0.0, 0.5, 0.59375, 0.7578125, 1.0]),
    ],
)
def test_terms_are_added_and_taken_away(order, rounded):
    values = np.array([0.001, 0.5, 0.6, 0.76, 1.004])
    assert round_to_powers(values, order, spacing=0.01, zero_distance=2.0**-7).tolist() == rounded


def test_no_power_is_below_the_floor_of_its_order():
    """0.26 = 0.25 + 0.01: at zero distance 2^-3 order 1 has no power below 2^-5, order 3 none below 2^-7."""
    for order, value in [(1, 0.25 + 2**-5), (3, 0.25 + 2**-7)]:
        assert round_to_powers(np.array([0.26]), order, spacing=0.03, zero_distance=0.125).tolist() == [value]
