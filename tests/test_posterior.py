"""The posterior: initial sigma, sampling, gradients by hand, regularisers, what is held."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from pwfn.config import PwfnConfig
from pwfn.posterior import MIN_SIGMA, Posterior, initial_sigma, laplace_sigma, quantile, regularize_


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


def test_gradients_by_hand_equal_autograds():
    """The flat step against autograd, in float64, through `mu + max(sigma, floor) * eps` of every layer."""
    network = small_network()
    posterior = Posterior(network, PwfnConfig(regularization_strength=0.0))
    posterior.sigma[:5] = -0.01  # below the floor: no gradient there
    posterior.draw_(torch.Generator().manual_seed(5))
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    nn.functional.cross_entropy(network(images), labels).backward()
    posterior.fill_sigma_gradient_()

    reference = small_network().double().train()
    shapes = {name: p.shape for name, p in reference.named_parameters() if not name.startswith("1.")}
    mus = [piece.double().requires_grad_() for piece in posterior.weights.pieces(posterior.mu)]
    sigmas = [piece.double().requires_grad_() for piece in posterior.weights.pieces(posterior.sigma)]
    noises = [piece.double() for piece in posterior.weights.pieces(posterior.eps)]
    drawn = {
        name: (mu + sigma.clamp(min=MIN_SIGMA) * eps).view(shape)
        for (name, shape), mu, sigma, eps in zip(shapes.items(), mus, sigmas, noises, strict=True)
    }
    output = functional_call(reference, drawn, (images.double(),))
    nn.functional.cross_entropy(output, labels).backward()
    expected_mu = torch.cat([mu.grad for mu in mus]).float()
    expected_sigma = torch.cat([sigma.grad for sigma in sigmas]).float()
    assert expected_sigma.abs().max() > 1e-3
    torch.testing.assert_close(posterior.mu_gradient, expected_mu, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(posterior.sigma_gradient, expected_sigma, rtol=1e-3, atol=1e-6)
    assert (posterior.sigma_gradient[:5] == 0).all()


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
    regularize_(kind, gradient, sigma, eps, pulled, strength=0.3, target=0.05)
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    assert torch.equal(gradient[~pulled], before[~pulled])
    assert not torch.equal(gradient[pulled], before[pulled])


def test_fixed_weights_and_biases_are_not_pulled():
    posterior = Posterior(small_network(), PwfnConfig(regularization_strength=1.0))
    posterior.fixed[:10] = True
    posterior.eps.fill_(1.0)
    posterior.fill_sigma_gradient_()
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
