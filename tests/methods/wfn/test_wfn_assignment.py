"""The greedy assignment against its slow transcription, in border cases, and what holds for any weights."""

import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_wfn import slow_assign

from pwfn.errors import DivergedWeightsError
from pwfn.methods.wfn import assign

EIGHTHS = [k / 8 for k in range(-20, 21)]
"""Weights that meet in values, lie halfway between them, and are as far from one on either side."""


def fast(weights, fixed=None, device="cpu", **options):
    fixed = np.zeros(len(weights), dtype=bool) if fixed is None else fixed
    groups = assign(torch.from_numpy(weights).to(device), torch.from_numpy(fixed).to(device), **options)
    return [(group.value, group.places.tolist()) for group in groups]


def gaussian(num_weights, scale=0.3, seed=0):
    return np.random.default_rng(seed).normal(0, scale, num_weights).astype(np.float32)


@pytest.mark.parametrize("allowed", [0.0075, 0.03, 0.1, 0.6, 3.0])
@pytest.mark.parametrize("zero_distance", [2.0**-7, 0.0111])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_equals_the_slow_transcription(allowed, zero_distance, share):
    weights = gaussian(700, seed=int(1000 * allowed))
    weights[::50] = 0
    fixed = np.random.default_rng(1).random(700) < 0.2
    need = int(share * (~fixed).sum())
    options = {"need": need, "allowed": allowed, "zero_distance": zero_distance}
    assert fast(weights, fixed, **options) == slow_assign(weights, fixed, **options)


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(
        st.one_of(st.sampled_from(EIGHTHS), st.floats(-3, 3, width=32), st.floats(-(2**-6), 2**-6, width=32)),
        min_size=1,
        max_size=60,
    ),
    share=st.floats(0, 1),
    allowed=st.sampled_from([0.0075, 0.05, 0.125, 0.25, 0.5, 2.0]),
    zero_distance=st.sampled_from([2.0**-7, 0.1, 0.125, 0.9]),
)
@example(weights=[-1.5], share=1.0, allowed=0.25, zero_distance=0.9)  # a grid value equals the largest weight
@example(weights=[-0.25], share=1.0, allowed=0.25, zero_distance=0.1)  # an error equals the spacing
@example(weights=[-2.5, -2.5, -2.5], share=1.0, allowed=0.05, zero_distance=0.0078125)  # a mean equals what is allowed
def test_equals_the_slow_transcription_where_weights_tie(weights, share, allowed, zero_distance):
    array = np.array(weights, dtype=np.float32)
    options = {"need": round(share * len(array)), "allowed": allowed, "zero_distance": zero_distance}
    assert fast(array, **options) == slow_assign(array, np.zeros(len(array), dtype=bool), **options)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), allowed=st.floats(0.005, 2), share=st.floats(0, 1))
def test_fixes_as_many_as_needed_each_once_and_none_that_was_fixed(seed, allowed, share):
    weights, fixed = gaussian(300, seed=seed), np.random.default_rng(seed).random(300) < 0.4
    need = int(share * (~fixed).sum())
    groups = fast(weights, fixed, need=need, allowed=allowed, zero_distance=0.01)
    places = [place for _, taken in groups for place in taken]
    assert len(places) == len(set(places)) == need
    assert not fixed[places].any()


def test_a_group_moves_no_further_than_allowed_on_average():
    """Until the last few, which lie between values of the last order too and are taken at a multiple."""
    weights = gaussian(3000)
    weights = weights[np.abs(weights) > 0.02]
    groups = fast(weights, need=int(0.9 * len(weights)), allowed=0.05, zero_distance=0.01)
    for value, places in groups:
        assert (np.abs(weights[places] - value) / np.abs(weights[places])).mean() <= 0.05 + 1e-9
    farthest = max((np.abs(weights[p] - v) / np.abs(weights[p])).max() for v, p in groups)
    assert farthest > 0.05  # the bound is on the mean, not on each weight


def test_the_prefix_ends_where_the_mean_passes_the_allowed_distance():
    """To 1: distances 0, 0, 1/9, 1/5 of 1, 1, 0.9, 1.25; their running means are 0, 0, 1/27, 7/90."""
    weights = np.array([1.25, 0.9, 1.0, 1.0], dtype=np.float32)
    assert fast(weights, need=4, allowed=0.05, zero_distance=0.5)[0] == (1.0, [2, 3, 1])
    assert fast(weights, need=4, allowed=0.08, zero_distance=0.5)[0] == (1.0, [2, 3, 1, 0])
    assert fast(weights, need=2, allowed=0.08, zero_distance=0.5) == [(1.0, [2, 3])]


@pytest.mark.parametrize("num_weights", [1, 7])
def test_zeros_alone_stay_zero(num_weights):
    weights = np.zeros(num_weights, dtype=np.float32)
    groups = fast(weights, need=num_weights, allowed=0.1, zero_distance=2.0**-7)
    assert groups == [(0.0, list(range(num_weights)))]
    assert np.copysign(1, groups[0][0]) == 1


def test_weights_below_the_zero_distance_become_zero_together():
    weights = np.array([0.0077, -0.0001, 0.0, -0.0078], dtype=np.float32)
    assert fast(weights, need=4, allowed=0.01, zero_distance=2.0**-7) == [(0.0, [3, 1, 2, 0])]


def test_a_weight_alone_is_reached_at_some_order():
    for weight in (0.7, -3e-3, 1e-20, 5e4):
        weights = np.array([weight], dtype=np.float32)
        ((value, places),) = fast(weights, need=1, allowed=0.01, zero_distance=2.0**-7)
        assert places == [0]
        assert value == 0 if abs(weight) < 2**-7 else abs(value - weight) <= 0.03 * abs(weight)


def test_a_weight_that_no_value_reaches_is_taken_at_a_larger_distance():
    """Nearest to 0.006 is 2^-7, 30 % away: 0.01 doubles five times. To 1 it is 1 - 2^-6: the grid ends at 0.988."""
    weights = np.array([0.006, 0.0061, 1.0], dtype=np.float32)
    groups = fast(weights, need=3, allowed=0.01, zero_distance=2.0**-7)
    assert groups == slow_assign(weights, np.zeros(3, dtype=bool), need=3, allowed=0.01, zero_distance=2.0**-7)
    assert groups[0] == (2.0**-7, [1, 0])
    assert groups[1] == (1 - 2.0**-6, [2])


def test_nothing_needed_is_nothing_done():
    assert fast(gaussian(10), need=0, allowed=0.01, zero_distance=0.01) == []
    assert fast(np.zeros(0, dtype=np.float32), need=0, allowed=0.01, zero_distance=0.01) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(bad):
    weights = np.array([0.5, bad, -0.25], dtype=np.float32)
    low, high = (-np.inf, 0.5) if bad == -np.inf else (-0.25, bad)
    with pytest.raises(DivergedWeightsError, match=re.escape(f"must be finite, but go from {low:g} to {high:g}")):
        fast(weights, need=3, allowed=0.01, zero_distance=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_chooses_the_same_groups():
    weights = gaussian(100_000)
    options = {"need": 95_000, "allowed": 0.02, "zero_distance": 2.0**-7}
    assert fast(weights, device="cuda", **options) == fast(weights, **options)


def test_memory_does_not_grow_with_the_number_of_values():
    """A (weights, values) matrix would be 1e5 x 2,400 float32, 970 MB; the process may not grow by a tenth of it."""
    import resource

    weights = gaussian(100_000)
    fast(weights, need=1000, allowed=0.1, zero_distance=2.0**-7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    groups = fast(weights, need=20_000, allowed=0.002, zero_distance=2.0**-7)
    assert len({value for value, _ in groups}) > 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 97_000  # KiB
