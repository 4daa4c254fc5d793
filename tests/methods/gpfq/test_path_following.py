"""Both forms of the path against the paper's recursion, ties and dead features included."""

import numpy as np
import pytest
import torch
from slow_path import slow_path

from pwfn.config import GpfqConfig
from pwfn.methods.gpfq import gptq
from pwfn.methods.gpfq.alphabet import Alphabet, quantizer
from pwfn.methods.gpfq.path_following import Grams, Samples, activation_order, quantize_in_order

NEAREST = quantizer(Alphabet(0.25, 4), GpfqConfig(), torch.Generator())
LEVELS = 0.25 * np.arange(-4, 5)


def case(kind, groups=2, neurons=5, features=40, samples=60, seed=0):
    """weights, X and X~."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(scale=0.4, size=(groups, neurons, features))
    if kind == "ties":  # multiples of 1/8 and of 1: every sum is exact, half the arguments lie between two levels
        weights = draw.integers(-8, 9, size=weights.shape) / 8
        inputs = np.repeat(draw.integers(-1, 2, size=(groups, features // 2, samples)), 2, axis=1).astype(float)
        inputs[:, :, 1:] = 0  # one sample: norms are 0 or 1
        return weights, inputs, inputs
    float_inputs = draw.normal(size=(groups, features, samples)) + (3 if kind == "correlated" else 0)
    inputs = float_inputs + 0.1 * draw.normal(size=float_inputs.shape)
    if kind == "dead":
        inputs[:, ::3] = 0
    if kind == "fewer samples":
        return weights, float_inputs[..., :7], inputs[..., :7]
    return weights, float_inputs, inputs


def grams(float_inputs, inputs):
    return Grams(inputs @ float_inputs.mT, inputs @ inputs.mT)


KINDS = ["plain", "correlated", "dead", "ties", "fewer samples"]


@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_equal_the_recursion(kind, block, monkeypatch):
    monkeypatch.setattr(gptq, "BLOCK_FEATURES", block)
    arrays = case(kind)
    expected = np.stack([slow_path(*parts, LEVELS) for parts in zip(*arrays, strict=True)])
    weights, float_inputs, inputs = (torch.from_numpy(array) for array in arrays)
    assert len(np.unique(expected)) > 5
    for form in (grams(float_inputs, inputs), Samples(float_inputs, inputs)):
        assert torch.equal(form.follow_path(weights, [NEAREST] * weights.shape[2]), torch.from_numpy(expected))


def test_dead_features_get_zero():
    weights, float_inputs, inputs = (torch.from_numpy(array) for array in case("dead"))
    assert (Samples(float_inputs, inputs).follow_path(weights, [NEAREST] * weights.shape[2])[..., ::3] == 0).all()


def test_following_the_path_loses_less_than_rounding():
    """The reason for it all, on a layer with correlated inputs."""
    weights, float_inputs, _ = (torch.from_numpy(array) for array in case("correlated", features=200, samples=20))
    followed = grams(float_inputs, float_inputs).follow_path(weights, [NEAREST] * weights.shape[2])
    errors = [((weights - levels) @ float_inputs).norm() for levels in (followed, NEAREST(weights))]
    assert errors[0] < errors[1] / 2


def test_another_order_is_that_of_a_layer_stored_so():
    weights, float_inputs, inputs = (torch.from_numpy(array) for array in case("plain"))
    order = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(group)) for group in range(2)])
    for form in (grams(float_inputs, inputs), Samples(float_inputs, inputs)):
        levels = quantize_in_order(form, order, weights, [NEAREST] * 40)
        for group in range(2):
            row = order[group]
            stored = Samples(float_inputs[group : group + 1, row], inputs[group : group + 1, row])
            expected = stored.follow_path(weights[group : group + 1, :, row], [NEAREST] * 40)
            assert torch.equal(levels[group : group + 1, :, row], expected)


def test_the_activation_order_is_stable_and_leaves_the_constant_last():
    energies = torch.tensor([[1.0, 3.0, 1.0, 3.0, 9.0], [5.0, 4.0, 0.0, 4.0, 1.0]])
    assert activation_order(energies, has_constant=True).tolist() == [[1, 3, 0, 2, 4], [0, 1, 3, 2, 4]]
    assert activation_order(energies, has_constant=False).tolist() == [[4, 1, 3, 0, 2], [0, 1, 3, 4, 2]]


def test_both_forms_know_the_energies():
    _, float_inputs, inputs = (torch.from_numpy(array) for array in case("plain"))
    expected = (inputs**2).sum(dim=2)
    for form in (grams(float_inputs, inputs), Samples(float_inputs, inputs)):
        assert torch.allclose(form.energies(), expected)


def test_each_feature_has_its_own_quantizer():
    """As the bias has, which comes last."""
    weights, float_inputs, inputs = (torch.from_numpy(array) for array in case("plain"))
    plain = [NEAREST] * 40
    coarse = quantizer(Alphabet(1.0, 1), GpfqConfig(), torch.Generator())
    for form in (grams(float_inputs, inputs), Samples(float_inputs, inputs)):
        levels = form.follow_path(weights, [*plain[:-1], coarse])
        assert torch.equal(levels[..., :-1], form.follow_path(weights, plain)[..., :-1])
        assert set(levels[..., -1].flatten().tolist()) == {-1.0, 0.0, 1.0}
