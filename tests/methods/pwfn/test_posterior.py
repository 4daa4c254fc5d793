"""The posterior: initial sigma, sampling, gradients by hand, regularisers, what is held."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from pwfn.config import PwfnConfig, TrainingConfig
from pwfn.descent import Descent
from pwfn.methods.pwfn.method import PosteriorLearner
from pwfn.methods.pwfn.posterior import Posterior, initial_sigma, laplace_sigma, regularize_
from pwfn.parameters import MIN_SIGMA, quantile
from pwfn.replicas import Replicas


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, dilation=2, stride=2, padding=2, padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 5),
    )


def sigma_by_definition(weights: list[float], scale: float = 0.0025) -> list[float]:
    """The paper's formula word by word, in Python floats."""
    products = []
    for w in weights:
        up = math.copysign(2 ** math.ceil(math.log2(abs(w))), w)
        down = math.copysign(2 ** math.floor(math.log2(abs(w))), w)
        products.append(abs((w - up) / w) * abs((w - down) / w))
    q75 = float(np.quantile(products, 0.75))
    return [min(max(scale * p / q75, 2**-30), 0.05) for p in products]


def test_initial_sigma_is_the_papers_formula():
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(1)) * 0.1
    sigma = initial_sigma(weights, PwfnConfig())
    expected = torch.tensor(sigma_by_definition(weights.tolist()))
    torch.testing.assert_close(sigma, expected, rtol=2e-4, atol=1e-9)
    assert sigma.max() > 0.0025  # the quantile, not the maximum, is at the scale


@pytest.mark.parametrize("weights", [[0.0, 0.3, -0.7, 0.11], [0.5, -0.25, 1.0, 2.0], [0.0, 0.0], [0.0], [0.37]])
def test_initial_sigma_is_finite_and_within_bounds_for_zeros_and_powers_of_two(weights):
    values = torch.tensor(weights)
    sigma = initial_sigma(values, PwfnConfig())
    assert sigma.isfinite().all()
    assert ((sigma >= MIN_SIGMA) & (sigma <= 0.05)).all()
    exact = values.abs().log2().frac() == 0
    assert (sigma[exact | (values == 0)] == MIN_SIGMA).all()


def test_sigma_scale_and_prior_switch():
    weights = torch.linspace(0.01, 0.9, 400)
    small, large = (initial_sigma(weights, PwfnConfig(sigma_scale=s)) for s in (0.001, 0.002))
    unclamped = large < 0.05
    torch.testing.assert_close(2 * small[unclamped & (small > MIN_SIGMA)], large[unclamped & (small > MIN_SIGMA)])
    assert (initial_sigma(weights, PwfnConfig(prior=False)) == 1e-4).all()


def test_laplace_sigma_is_its_definition():
    fisher = torch.randn(1000, generator=torch.Generator().manual_seed(1)).exp() ** 3
    sigma = laplace_sigma(fisher, PwfnConfig(sigma_scale=0.004))
    f = fisher.double().numpy()
    width = 1 / np.sqrt(f + 0.01 * f.mean())
    expected = np.clip(0.004 * width / np.quantile(width, 0.75), 2**-30, 0.05)
    np.testing.assert_allclose(sigma.numpy(), expected, rtol=1e-4)
    assert np.quantile(sigma.numpy(), 0.75) == pytest.approx(0.004, rel=1e-4)
    torch.testing.assert_close(laplace_sigma(1e-20 * fisher, PwfnConfig(sigma_scale=0.004)), sigma)


@pytest.mark.parametrize("fisher", [[0.0, 0.0, 0.0], [0.0], [3.0], [2.0, 2.0]])
def test_laplace_sigma_of_equal_information_is_the_scale(fisher):
    assert laplace_sigma(torch.tensor(fisher), PwfnConfig()).tolist() == pytest.approx([0.0025] * len(fisher))


def test_laplace_sigma_stays_within_the_papers_bounds():
    fisher = torch.tensor([0.0] + [1e9] * 9)
    sigma = laplace_sigma(fisher, PwfnConfig(sigma_scale=0.03))
    assert sigma[0] == np.float32(0.05)
    assert sigma[1:] == pytest.approx(0.03)


def test_each_tensor_starts_from_its_own_fisher_information():
    posterior = Posterior(small_network(), PwfnConfig())
    fisher = torch.rand(posterior.num_weights, generator=torch.Generator().manual_seed(0))
    posterior.start_from_fisher_(fisher)
    pieces = zip(posterior.weights.pieces(posterior.sigma), posterior.weights.pieces(fisher), strict=True)
    for sigma, of_tensor in pieces:
        assert torch.equal(sigma, laplace_sigma(of_tensor, PwfnConfig()))
        assert torch.equal(sigma.argsort(), of_tensor.argsort(descending=True))


@pytest.mark.parametrize("from_fisher", [False, True])
def test_weights_that_lie_channels_last_have_the_same_sigma(from_fisher):
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        posterior = Posterior(small_network().to(memory_format=layout), PwfnConfig())
        if from_fisher:
            posterior.start_from_fisher_(torch.rand(posterior.num_weights, generator=torch.Generator().manual_seed(0)))
        found.append(posterior.weights.views(posterior.sigma))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert any(one.stride() != other.stride() for one, other in zip(*found, strict=True))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40), st.floats(0, 1))
def test_quantile_equals_numpys(values, q):
    ours = quantile(torch.tensor(values, dtype=torch.float64), q).item()
    assert ours == pytest.approx(float(np.quantile(np.array(values, dtype=np.float64), q)), rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_quantile_of_more_elements_than_torch_takes():
    values = torch.arange(2**24 + 5, dtype=torch.float32)
    assert quantile(values, 0.75).item() == pytest.approx(0.75 * (2**24 + 4), rel=1e-6)
    sigma = initial_sigma(torch.rand(2**24 + 5), PwfnConfig())
    assert sigma.isfinite().all()


def test_without_sigma_the_sample_is_the_plain_network():
    network = small_network().eval()
    images = torch.randn(2, 3, 8, 8)
    plain = network(images)
    posterior = Posterior(network, PwfnConfig())
    posterior.sigma.zero_()
    posterior.draw_(torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), plain, rtol=0, atol=1e-6)  # the floor 2^-30 is no noise
    posterior.show_mean_()
    assert torch.equal(network(images), plain)


def test_noise_has_the_posteriors_mean_and_spread():
    posterior = Posterior(small_network(), PwfnConfig(prior=False))
    posterior.sigma.fill_(0.02)
    generator = torch.Generator().manual_seed(3)
    draws = torch.stack([(posterior.draw_(generator), posterior.sample.clone())[1] for _ in range(2000)])
    assert (draws.mean(0) - posterior.mu).abs().max() < 5 * 0.02 / 2000**0.5
    assert (draws.std(0) / 0.02 - 1).abs().max() < 0.1


PENALTIES = {
    "linear": lambda gap: gap.square() / 2,
    "exponential": lambda gap: gap.exp() - 1 - gap,
}
"""Of the distance below the target, times |eps|: their slopes are the two pulls."""


@pytest.mark.parametrize("kind", PENALTIES)
def test_steps_by_hand_equal_autograds(kind):
    """Three flat steps against autograd and torch's SGD per tensor, in float64, a third of the weights fixed."""
    config = PwfnConfig(regularization=kind, regularization_strength=0.5)
    training = TrainingConfig(lr=0.1, weight_decay=0.01, clip_norm=2.0)
    posterior = Posterior(small_network().double(), config)
    posterior.fixed[::3] = True
    posterior.sigma[:6] = -0.01  # below the floor: the loss has no slope there
    descent = Descent(
        posterior.values, posterior.gradient, training, num_steps=3, replicas=Replicas(), held=posterior.held()
    )
    generator = torch.Generator().manual_seed(5)
    learner = PosteriorLearner(posterior, descent, generator)

    reference = small_network().double()
    names = [name for name, _ in reference.named_parameters() if not name.startswith("1.")]
    shapes = [reference.get_parameter(name).shape for name in names]
    mus = [mu.view(shape).clone() for mu, shape in zip(posterior.weights.pieces(posterior.mu), shapes, strict=True)]
    sigmas = [s.view(shape).clone() for s, shape in zip(posterior.weights.pieces(posterior.sigma), shapes, strict=True)]
    is_free = [f.view(shape) for f, shape in zip(posterior.weights.pieces(~posterior.fixed), shapes, strict=True)]
    rest = [reference[1].weight, reference[1].bias]
    for tensor in (*mus, *sigmas):
        tensor.requires_grad_()
    optimizer = torch.optim.SGD([*mus, *sigmas, *rest], lr=0.1, momentum=0.9)

    for _ in range(3):
        images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
        learner.prepare()
        noises = [e.view(s).clone() for e, s in zip(posterior.weights.pieces(posterior.eps), shapes, strict=True)]
        nn.functional.cross_entropy(posterior.network(images), labels).backward()
        learner.step()

        optimizer.zero_grad()
        drawn = [mu + sigma.clamp(min=MIN_SIGMA) * eps for mu, sigma, eps in zip(mus, sigmas, noises, strict=True)]
        output = functional_call(reference, dict(zip(names, drawn, strict=True)), (images,))
        penalties = [
            (PENALTIES[kind]((config.sigma_target - sigma).relu()) * eps.abs() * free).sum()
            for sigma, eps, free in zip(sigmas, noises, is_free, strict=True)
            if sigma.ndim > 1  # biases are not pulled
        ]
        (nn.functional.cross_entropy(output, labels) + 0.5 * sum(penalties)).backward()
        for tensor, free in zip((*mus, *sigmas), is_free * 2, strict=True):
            tensor.grad *= free
        torch.nn.utils.clip_grad_norm_([*mus, *sigmas, *rest], 2.0)
        for tensor, free in zip((*mus, *sigmas, *rest), (*is_free, *is_free, 1, 1), strict=True):
            tensor.grad += 0.01 * tensor.detach() * free
        optimizer.step()

    expected = torch.cat([tensor.detach().flatten() for tensor in (*mus, *sigmas, *rest)])
    start = Posterior(small_network().double(), config).values
    assert (posterior.values - start).abs().max() > 1e-2
    torch.testing.assert_close(posterior.values, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(posterior.mu[posterior.fixed], start[: posterior.num_weights][posterior.fixed])


def regularizer_by_definition(kind, gradient, sigma, eps, pulled, strength, target):
    """One weight after the other, in Python floats."""
    result = [float(g) for g in gradient]
    if kind == "linear_on_grad":
        below = [i for i in range(len(result)) if pulled[i] and sigma[i] < target]
        for i in below:
            result[i] = 0.0 if sigma[i] <= MIN_SIGMA else abs(result[i])
        exponents = {i: math.exp(-abs(result[i]) * (1 - abs(eps[i])) / 0.1) for i in below}
        for i in below:
            result[i] -= strength * exponents[i] / sum(exponents.values())
        return result
    for i in range(len(result)):
        gap = max(target - sigma[i], 0.0)
        pull = gap if kind == "linear" else math.exp(gap) - 1
        result[i] -= strength * pull * abs(eps[i]) if pulled[i] else 0.0
    return result


@pytest.mark.parametrize("kind", ["linear", "exponential", "linear_on_grad"])
def test_regularizers_equal_their_definition(kind):
    generator = torch.Generator().manual_seed(7)
    gradient = torch.randn(50, generator=generator)
    sigma = torch.rand(50, generator=generator) * 0.1 - 0.01  # some below the floor, some above the target
    eps = torch.randn(50, generator=generator)
    pulled = torch.rand(50, generator=generator) < 0.7
    expected = regularizer_by_definition(
        kind, gradient.tolist(), sigma.tolist(), eps.tolist(), pulled.tolist(), strength=0.3, target=0.05
    )
    before = gradient.clone()
    regularize_(kind, gradient, sigma, eps.abs(), pulled, strength=0.3, target=0.05)
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    assert torch.equal(gradient[~pulled], before[~pulled])
    assert not torch.equal(gradient[pulled], before[pulled])


def test_linear_on_grad_pulls_nothing_where_nothing_may_be_pulled():
    gradient, sigma = torch.tensor([-1.0, 2.0]), torch.tensor([0.01, 0.01])
    pulled = torch.tensor([False, False])
    regularize_("linear_on_grad", gradient, sigma, torch.ones(2), pulled, strength=0.3, target=0.05)
    assert gradient.tolist() == [-1.0, 2.0]


def test_fixed_weights_and_biases_are_not_pulled():
    posterior = Posterior(small_network(), PwfnConfig(regularization_strength=1.0))
    posterior.fixed[:10] = True
    posterior.eps.fill_(1.0)
    posterior.fill_sigma_gradient_(posterior.pulled())
    is_bias = torch.cat(
        [torch.full((p.numel(),), p.ndim == 1) for n, p in small_network().named_parameters() if not n.startswith("1.")]
    )
    assert (posterior.sigma_gradient[:10] == 0).all()
    assert (posterior.sigma_gradient[is_bias] == 0).all()
    assert (posterior.sigma_gradient[~is_bias & ~posterior.fixed] < 0).all()


@pytest.mark.parametrize("join", ["std_mu", "allow_retraining"])
def test_what_is_held(join):
    posterior = Posterior(small_network(), PwfnConfig(sigma_join=join))
    posterior.fixed[3] = True
    n = posterior.num_weights
    both = posterior.held()
    assert both[:n].sum() == 1
    assert both[n : 2 * n].sum() == (join == "std_mu")
    assert not both[2 * n :].any()
    only_sigma = posterior.held(mu=False)
    assert only_sigma[:n].all()
    assert only_sigma[2 * n :].all()
    assert posterior.held(sigma=False)[n : 2 * n].all()


def test_state_restores_everything():
    one, other = Posterior(small_network(), PwfnConfig()), Posterior(small_network(), PwfnConfig())
    one.values.normal_()
    one.fixed[::2] = True
    one.network[1].running_mean.fill_(3.0)
    other.load_state(one.state())
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.fixed, other.fixed)
    assert torch.equal(other.network[1].running_mean, torch.full((6,), 3.0))
    assert torch.equal(other.sample, one.mu)
