"""GPTQ of one layer against its definition, and what it is for: a smaller error than the greedy path."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from slow_gptq import error, slow_gptq
from test_path_following import LEVELS, NEAREST, case, grams

from pwfn.methods.gpfq import gptq
from pwfn.methods.gpfq.path_following import Samples, quantize_in_order

KINDS = ["plain", "correlated", "dead", "fewer samples"]


def tensors(arrays):
    return tuple(torch.from_numpy(array) for array in arrays)


@pytest.mark.parametrize("sweeps", [0, 1, 4])
@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_the_levels_are_those_of_the_definition(kind, block, sweeps, monkeypatch):
    monkeypatch.setattr(gptq, "BLOCK_FEATURES", block)
    monkeypatch.setattr(gptq, "MAX_SWEEPS", sweeps)
    arrays = case(kind)
    weights, float_inputs, inputs = tensors(arrays)
    found = grams(float_inputs, inputs).gptq(weights, [NEAREST] * 40)
    expected = [slow_gptq(*p, LEVELS, damping_share=gptq.DAMPING, sweeps=sweeps) for p in zip(*arrays, strict=True)]
    assert len(np.unique(found)) > 5
    assert np.array_equal(found, np.stack(expected))


@pytest.mark.parametrize("kind", ["plain", "correlated", "dead"])
def test_its_error_is_below_that_of_the_path(kind):
    arrays = case(kind)
    weights, float_inputs, inputs = tensors(arrays)
    form = grams(float_inputs, inputs)
    errors = [error(levels.numpy(), *arrays).sum() for levels in (
        form.gptq(weights, [NEAREST] * 40), form.follow_path(weights, [NEAREST] * 40))]  # fmt: skip
    assert errors[0] < 0.8 * errors[1]


def test_choosing_again_never_raises_the_error_and_comes_to_an_end(monkeypatch):
    arrays = case("correlated", features=60)
    weights, float_inputs, inputs = tensors(arrays)
    form, reached = grams(float_inputs, inputs), []
    monkeypatch.setattr(gptq, "DAMPING", 1e-9)
    for sweeps in (0, 1, 2, 5, 200, 201):
        monkeypatch.setattr(gptq, "MAX_SWEEPS", sweeps)
        reached.append(error(form.gptq(weights, [NEAREST] * 60).numpy(), *arrays))
    for fewer, more in pairwise(reached):
        assert (more <= fewer * (1 + 1e-6)).all()
    assert reached[1].sum() < reached[0].sum()
    assert np.array_equal(reached[-1], reached[-2])


def test_a_layer_that_no_image_reaches_gets_the_nearest_levels():
    weights, float_inputs, _ = tensors(case("plain"))
    nothing = torch.zeros_like(float_inputs)
    assert torch.equal(grams(nothing, nothing).gptq(weights, [NEAREST] * 40), NEAREST(weights))


def test_a_layer_that_is_on_its_levels_stays_as_it_is():
    weights, float_inputs, _ = tensors(case("correlated"))
    levels = NEAREST(weights)
    assert torch.equal(grams(float_inputs, float_inputs).gptq(levels, [NEAREST] * 40), levels)


def test_without_gram_matrices_the_path_is_taken():
    weights, float_inputs, inputs = tensors(case("plain"))
    order = torch.arange(40).expand(2, -1)
    form = Samples(float_inputs, inputs)
    found = quantize_in_order(form, order, weights, [NEAREST] * 40, "gptq")
    assert torch.equal(found, form.follow_path(weights, [NEAREST] * 40))
    assert not torch.equal(
        found, quantize_in_order(grams(float_inputs, inputs), order, weights, [NEAREST] * 40, "gptq")
    )
