"""The alphabets: radii by hand, ties, ranges, and the variants of rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_path import nearest_level

from pwfn.config import GpfqConfig, MsqConfig
from pwfn.methods.gpfq.alphabet import Alphabet, alphabets_of, quantizer

WEIGHTS = [torch.tensor([[1.0, -4.0, 2.0], [0.0, 2.0, -1.0]]), torch.tensor([[[[10.0, -30.0]]]])]
NO_BIASES = [torch.empty(0), torch.empty(0)]
LAYERS = [[weight.flatten(1)] for weight in WEIGHTS]
QUARTERS = Alphabet(0.25, 4)


def quantize(arguments, alphabet=QUARTERS, seed=0, **config):
    draw = quantizer(alphabet, GpfqConfig(**config), torch.Generator().manual_seed(seed))
    return draw(torch.as_tensor(arguments, dtype=torch.float64))


@pytest.mark.parametrize(
    ("config", "radii"),
    [
        ({}, (3.0, 30.0)),  # mean of the row maxima 4 and 2
        ({"percentile": 0.5}, (1.5, 20.0)),  # row medians 2 and 1; 10 and 30 interpolated
        ({"scale": 2.0}, (6.0, 60.0)),
        ({"shared_alphabet": True}, (12.0, 12.0)),  # mean of 4, 2 and 30
        ({"radius": "median"}, (1.5, 20.0)),  # of 0 1 1 2 2 4, and of 10 30
        ({"radius": "median", "shared_alphabet": True}, (2.0, 2.0)),  # of 0 1 1 2 2 4 10 30
    ],
)
def test_radius(config, radii):
    for bits in (1, 3):
        alphabets = [both.weight for both in alphabets_of(LAYERS, NO_BIASES, MsqConfig(bits=bits, **config))]
        assert [alphabet.num_positive for alphabet in alphabets] == [2 ** (bits - 1)] * 2
        assert [alphabet.step_size * alphabet.num_positive for alphabet in alphabets] == pytest.approx(radii)


@pytest.mark.parametrize(
    ("bias", "radius"),
    [([], 3), ([0.0, 0.0], 3), ([3.0, -1.0], 3), ([-3.5, 1.0], 3), ([-4.0, 1.0], 4), ([10.0, 0.0], 10)],
)
def test_a_bias_has_its_own_alphabet_only_where_that_of_the_weights_does_not_reach(bias, radius):
    """At two bits the step is 1.5: a bias of 3.5 loses no more at 3 than by rounding."""
    both = alphabets_of(LAYERS[:1], [torch.tensor(bias)], MsqConfig(bits=2))[0]
    assert both.weight == Alphabet(1.5, 2)
    assert both.bias == Alphabet(radius / 2, 2)


def test_a_shared_alphabet_has_one_for_all_biases():
    biases = [torch.tensor([1.0, -50.0]), torch.tensor([20.0])]
    alphabets = alphabets_of(LAYERS, biases, MsqConfig(bits=1, shared_alphabet=True))
    assert [both.bias.step_size for both in alphabets] == [50, 50]
    assert [both.weight.step_size for both in alphabets] == [12, 12]


@pytest.mark.parametrize("bits", range(1, 6))
def test_an_alphabet_has_two_to_the_bits_plus_one_levels(bits):
    alphabet = alphabets_of(LAYERS[:1], NO_BIASES[:1], MsqConfig(bits=bits))[0].weight
    levels = alphabet.nearest(torch.linspace(-9, 9, 10_000)).unique()
    assert len(levels) == 2**bits + 1
    assert levels.max() == -levels.min() == 3
    assert torch.allclose(levels.diff(), torch.tensor(3 / 2 ** (bits - 1)))


@given(st.lists(st.floats(-3, 3) | st.integers(-24, 24).map(lambda n: n / 8), min_size=1, max_size=20))
def test_the_nearest_level_is_the_one_of_the_definition(arguments):
    levels = 0.25 * np.arange(-4, 5)
    expected = [nearest_level(argument, levels) for argument in arguments]
    assert quantize(arguments).tolist() == expected
    assert Alphabet(0.25, 4).nearest(torch.tensor(arguments, dtype=torch.float64)).tolist() == expected


def test_ties_go_to_even_steps_and_zero_has_no_sign():
    alphabet = Alphabet(2.0, 4)
    assert alphabet.nearest(torch.tensor([1.0, 3.0, 5.0, -1.0, -3.0])).tolist() == [0, 4, 4, 0, -4]
    for zeros in (alphabet.nearest(torch.tensor([-0.0, -0.5])), quantize([-0.0, -0.1])):
        assert not zeros.signbit().any()


def test_levels_are_float32_numbers():
    levels = quantize(np.linspace(-1, 1, 50), Alphabet(0.1, 4))
    assert torch.equal(levels, levels.float().double())


def test_a_layer_of_zeros_keeps_them():
    alphabet = alphabets_of([[torch.zeros(3, 4)]], NO_BIASES[:1], MsqConfig())[0].weight
    assert (alphabet.nearest(torch.tensor([0.0, 1.0, -2.0])) == 0).all()
    assert (quantize([0.0, 1.0, -2.0], alphabet, rounding="stochastic") == 0).all()


def test_stochastic_rounding_is_unbiased_within_the_range_and_goes_to_a_neighbour():
    drawn = quantize(torch.full((20_000,), 0.3), rounding="stochastic")
    assert set(drawn.tolist()) == {0.25, 0.5}
    assert drawn.mean() == pytest.approx(0.3, abs=0.005)
    assert quantize([0.5, -0.75, 7.0, -7.0], rounding="stochastic").tolist() == [0.5, -0.75, 1, -1]
    assert not torch.equal(drawn, quantize(torch.full((20_000,), 0.3), rounding="stochastic", seed=1))


def test_l1_shrinks_the_argument():
    found = quantize([0.2, 0.3, -0.45, 0.8, 9.0], sparsify="l1", threshold=0.2)
    assert found.tolist() == [0, 0, -0.25, 0.5, 1]


def test_l0_cuts_the_argument_and_moves_the_grid():
    found = quantize([0.2, -0.2, 0.21, -0.5, 9.0], sparsify="l0", threshold=0.2)
    assert found.tolist() == pytest.approx([0, 0, 0.2, -0.45, 1.2])
    assert found.tolist()[:2] == [0, 0]


@pytest.mark.parametrize("sparsify", ["l1", "l0"])
def test_a_threshold_of_zero_changes_nothing(sparsify):
    arguments = torch.linspace(-2, 2, 201)
    assert torch.equal(quantize(arguments, sparsify=sparsify), quantize(arguments))
