"""What a round does when nothing is left within reach: the ways beyond the paper's, against the slow transcription."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from clustering_cases import Case, assert_equals_slow, border_case, random_case
from hypothesis import given, settings
from hypothesis import strategies as st

from pwfn.codebook import Codebook
from pwfn.methods.pwfn.clustering import cluster_round

BEYOND_THE_PAPER = ("radius_first", "nearest")


@pytest.mark.parametrize("growth", BEYOND_THE_PAPER)
@pytest.mark.parametrize("make_case", [random_case, border_case])
@pytest.mark.parametrize("block", range(5))
def test_rounds_equal_the_slow_ones(growth, make_case, block):
    num_other = 0
    for seed in range(20 * block, 20 * (block + 1)):
        case = make_case(seed)
        other = assert_equals_slow(replace(case, growth=growth))
        num_other += not torch.equal(other.cluster_of_weight, assert_equals_slow(case).cluster_of_weight)
    assert num_other > 3


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(BEYOND_THE_PAPER),
    st.lists(
        st.tuples(st.floats(-4, 4, width=32), st.floats(0, 0.25, width=32), st.booleans()), min_size=1, max_size=25
    ),
    st.floats(0.05, 1),
    st.sampled_from([1.25, 2.0, 10.0]),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_small_round_equals_the_slow_one(growth, weights, fraction, radius_growth, max_order, recluster_free):
    mu, sigma, fixed = (np.array(column) for column in zip(*weights, strict=True))
    case = Case(mu.astype(np.float32), sigma.astype(np.float32), fraction, 1.0, radius_growth, 4)
    case = replace(case, max_order=max_order, fixed=fixed if recluster_free else None, growth=growth)
    clustered = assert_equals_slow(case)
    fixed_before = int(fixed.sum()) if recluster_free else 0
    assert clustered.codebook.counts.sum() == max(int(np.ceil(len(mu) * fraction)), fixed_before)


@pytest.mark.parametrize("growth", BEYOND_THE_PAPER)
def test_several_chunks_equal_the_slow_one(growth):
    mu, sigma = many(33_000)
    case = Case(mu.numpy(), sigma.numpy(), 0.999, 0.25, 2.0, 5, fixed=np.arange(len(mu)) % 7 == 0, growth=growth)
    assert_equals_slow(case)


def many(num_weights, *, spread=0.002):
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(num_weights, generator=generator) * 0.05
    mu[: num_weights // 300] *= 14
    return mu, torch.rand(num_weights, generator=generator) * spread


def one_weight(sigma, **options):
    """A weight at 0.75 between the values 0, 0.25, 0.5 and, with two powers, 0.75."""
    options = {"radius_growth": 2.0, "b": 2} | options
    clustered = cluster_round(torch.tensor([0.75]), torch.tensor([sigma]), fraction=1.0, radius=1.0, **options)
    return clustered.values.tolist(), clustered.radius_end


def test_radius_first_admits_higher_orders_only_at_eight_times_the_first_radius():
    """0.75 is 8 sigmas of 2^-5 from 0.5."""
    assert one_weight(2**-5, growth="radius_first") == ([0.5], 8.0)
    assert one_weight(2**-5 * 0.999, growth="radius_first") == ([0.75], 8.0)
    assert one_weight(2**-5) == ([0.75], 1.0)


def test_radius_first_widens_for_single_powers_alone():
    assert one_weight(2**-9, growth="radius_first", max_order=1) == ([0.5], 128.0)


def test_radius_first_of_a_growth_beyond_eight_is_the_order_alone():
    assert one_weight(2**-5, growth="radius_first", radius_growth=8.1) == ([0.75], 1.0)


def nearest_round(mu, sigma, **options):
    return cluster_round(
        mu, sigma, **{"fraction": 1.0, "radius": 1.0, "radius_growth": 2.0, "b": 7, "growth": "nearest"} | options
    )


def test_nearest_makes_no_value_beyond_the_first_radius_and_widens_nothing():
    mu, sigma = many(3000, spread=0.01)
    clustered = nearest_round(mu, sigma)
    assert clustered.radius_end == 1.0
    centre = clustered.values[clustered.cluster_of_weight.numpy()]
    within = np.abs(centre - mu.numpy()) / np.maximum(sigma.numpy(), 2.0**-20) <= 1
    within |= (centre == 0) & (np.abs(mu.numpy()) < 2.0**-7)
    assert 0 < (~within).sum() < 1500
    assert set(centre[~within]) <= set(centre[within])
    paper = cluster_round(mu, sigma, fraction=1.0, radius=1.0, radius_growth=2.0, b=7)
    assert len(clustered.codebook.values) < len(paper.codebook.values)


def test_nearest_is_the_nearest_of_all_values_and_on_a_midpoint_the_smaller():
    mu = torch.tensor([0.5, 0.25, 0.375, -0.1, 0.4, 0.9])
    sigma = torch.tensor([0.01, 0.01, 1e-4, 1e-4, 1e-4, 1e-4])
    clustered = nearest_round(mu, sigma, b=2, max_order=1, zero_rule=False)
    values = clustered.codebook.values.tolist()
    assert values == [0.25, 0.5]
    centre = clustered.values[clustered.cluster_of_weight.numpy()].tolist()
    for weight, chosen in zip(mu.tolist(), centre, strict=True):
        assert chosen == min(values, key=lambda value, w=weight: (abs(Fraction(value) - Fraction(w)), value))
    assert centre == [0.5, 0.25, 0.25, 0.25, 0.5, 0.5]
    assert clustered.values.tolist() == [0.25, 0.5, 0.25, 0.5]  # the tail makes clusters of its own
    assert clustered.counts.tolist() == [1, 1, 2, 2]


def test_nearest_takes_the_nearest_in_sigmas_first_and_of_equal_ones_the_first():
    mu = torch.tensor([0.5, 0.9, 0.9, 0.9, 0.6])
    sigma = torch.tensor([0.01, 1e-3, 2e-3, 2e-3, 1e-6])
    clustered = nearest_round(mu, sigma, fraction=0.4, max_order=1)
    assert clustered.cluster_of_weight.tolist() == [0, -1, 1, -1, -1]


def test_nearest_counts_the_values_of_weights_fixed_before():
    mu, sigma = torch.tensor([0.3, 0.31, -0.6]), torch.full((3,), 1e-5)
    fixed = torch.tensor([True, False, False])
    clustered = nearest_round(mu, sigma, max_order=1, fixed=fixed, recluster="free")
    assert clustered.values.tolist() == [float(np.float32(0.3))]
    assert clustered.cluster_of_weight.tolist() == [-2, 0, 0]
    written = mu.clone()
    clustered.apply_(written, sigma, "std_mu")
    assert clustered.codebook.values.tolist() == Codebook.of(written).values.tolist()


def test_nearest_widens_the_radius_until_there_is_a_value():
    assert one_weight(2**-6, growth="nearest", max_order=1) == ([0.5], 16.0)
    assert one_weight(2**-6, growth="nearest", max_order=2) == ([0.75], 1.0)
