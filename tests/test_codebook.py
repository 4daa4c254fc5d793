"""The one definition of every reported number, against independent ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from pwfn.codebook import Codebook, entropy_bits, measure_codebook, value_orders

WEIGHTS = st.lists(st.sampled_from([0.0, -0.0, 0.5, -0.5, 0.75, 0.1, -3.0]), min_size=1, max_size=60)


def test_entropy_equals_scipys():
    counts = np.array([5, 1, 9, 300])
    assert entropy_bits(counts) == pytest.approx(entropy(counts, base=2), rel=1e-12)
    assert entropy_bits(np.array([7])) == 0.0
    assert math.copysign(1, entropy_bits(np.array([7]))) == 1  # no minus in front of zero


@given(WEIGHTS)
def test_a_codebook_counts_every_weight_and_zero_once(weights):
    codebook = Codebook.of(torch.tensor(weights))
    assert codebook.counts.sum() == len(weights)
    assert list(codebook.values) == sorted({np.float32(weight) + 0 for weight in weights})
    assert not np.signbit(codebook.values[codebook.values == 0]).any()
    metrics = measure_codebook(codebook)
    assert metrics.unique_values == len(set(weights))
    assert metrics.unique_nonzero == len(set(weights) - {0.0})
    assert metrics.sparsity == pytest.approx(sum(weight == 0 for weight in weights) / len(weights))
    assert 0 <= metrics.entropy_bits <= math.log2(metrics.unique_values) + 1e-9


def test_the_entropy_without_zeros_leaves_them_out():
    metrics = measure_codebook(Codebook.of(torch.tensor([0.0] * 96 + [0.5, 0.5, -0.5, -0.5])))
    assert metrics.entropy_nonzero_bits == pytest.approx(1.0)
    assert metrics.entropy_bits < 0.4


@pytest.mark.parametrize(
    ("value", "order"),
    [(0.0, 0), (1.0, 1), (-0.5, 1), (0.75, 2), (-7 / 128, 3), (2.0**-149, 1), (3 * 2.0**-149, 2), (1 - 2.0**-24, 24)],
)
def test_the_order_is_the_number_of_powers_of_two(value, order):
    assert value_orders(np.array([value], dtype=np.float32)).tolist() == [order]


@given(st.integers(-(2**24) + 1, 2**24 - 1), st.integers(-30, 10))
def test_the_order_equals_the_ones_of_the_integer(integer, exponent):
    value = np.array([integer * 2.0**exponent], dtype=np.float32)
    assert value_orders(value)[0] == abs(integer).bit_count()


def test_mean_order_weighs_by_count():
    metrics = measure_codebook(Codebook.of(torch.tensor([0.5, 0.5, 0.5, 0.75])))
    assert metrics.mean_order == pytest.approx((3 * 1 + 2) / 4)
    assert metrics.max_order == 2


def test_merging_steps_adds_up_equal_values():
    merged = Codebook.merge(np.array([0.5, -0.0, 0.25, 0.5, 0.0]), np.array([3, 4, 1, 2, 5]))
    assert merged.values.tolist() == [0.0, 0.25, 0.5]
    assert merged.counts.tolist() == [9, 1, 5]


def test_an_empty_codebook_is_all_zeros():
    assert measure_codebook(Codebook.of(torch.empty(0))).unique_values == 0
