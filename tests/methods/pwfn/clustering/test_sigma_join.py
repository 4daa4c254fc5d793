"""The sigma of newly fixed weights: each way of joining against its definition, cluster by cluster."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from pwfn.config import PwfnConfig
from pwfn.errors import UserError
from pwfn.methods.pwfn.clustering import ClusterRound, cluster_round
from pwfn.methods.pwfn.clustering.sigma_join import SIGMA_JOINS


@pytest.fixture
def weights() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    mu = torch.randn(4000, generator=generator) * 0.1
    sigma = torch.randn(4000, generator=generator) * 0.004  # negative ones included
    return mu, sigma


def joined(weights: tuple[Tensor, Tensor], name: str) -> tuple[ClusterRound, Tensor, Tensor]:
    mu, sigma = (tensor.clone() for tensor in weights)
    clustered = cluster_round(mu, sigma, fraction=0.8, radius=1.0, radius_growth=2.0, b=7)
    clustered.apply_(mu, sigma, name)
    return clustered, mu, sigma


def test_names_are_those_of_the_configuration() -> None:
    assert set(SIGMA_JOINS) == set(get_args(PwfnConfig.model_fields["sigma_join"].annotation))


@pytest.mark.parametrize("name", SIGMA_JOINS)
def test_mu_moves_to_the_values_and_free_weights_keep_their_bits(weights: tuple[Tensor, Tensor], name: str) -> None:
    clustered, mu, sigma = joined(weights, name)
    fixed = clustered.fixed
    values = torch.from_numpy(clustered.values).float()[clustered.cluster_of_weight[fixed].long()]
    assert torch.equal(mu[fixed], values)
    assert not torch.signbit(mu[mu == 0]).any()
    assert torch.equal(mu[~fixed].view(torch.int32), weights[0][~fixed].view(torch.int32))
    assert torch.equal(sigma[~fixed].view(torch.int32), weights[1][~fixed].view(torch.int32))


def test_std_mu_is_the_population_deviation_of_each_cluster(weights: tuple[Tensor, Tensor]) -> None:
    clustered, _, sigma = joined(weights, "std_mu")
    for number in range(len(clustered.values)):
        members = clustered.cluster_of_weight == number
        expected = weights[0][members].double().numpy().std()
        np.testing.assert_allclose(sigma[members].numpy(), expected, rtol=1e-7, atol=1e-11)


def test_mean_sigma_is_the_root_mean_square_of_each_cluster(weights: tuple[Tensor, Tensor]) -> None:
    clustered, _, sigma = joined(weights, "mean_sigma")
    for number in range(len(clustered.values)):
        members = clustered.cluster_of_weight == number
        expected = np.sqrt((weights[1][members].double().numpy() ** 2).mean())
        np.testing.assert_allclose(sigma[members].numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("divisor", [2, 10])
def test_keep_the_same_divides_each_sigma(weights: tuple[Tensor, Tensor], divisor: int) -> None:
    clustered, _, sigma = joined(weights, f"keep_the_same_divide_by_{divisor}")
    assert torch.equal(sigma[clustered.fixed], weights[1][clustered.fixed] / divisor)


def test_allow_retraining_leaves_sigma(weights: tuple[Tensor, Tensor]) -> None:
    _, _, sigma = joined(weights, "allow_retraining")
    assert torch.equal(sigma, weights[1])


def test_a_cluster_of_equal_weights_has_deviation_zero() -> None:
    mu, sigma = torch.full((1000,), 0.1), torch.full((1000,), 0.5)
    cluster_round(mu, sigma, fraction=1.0, radius=1.0, radius_growth=2.0, b=7).apply_(mu, sigma, "std_mu")
    assert sigma.tolist() == [0.0] * 1000


def test_std_mu_of_a_tight_cluster_with_one_outlier() -> None:
    """Sums of squares about anything but the mean, in float64, would lose the deviation of such a cluster."""
    mu = torch.full((100_001,), 0.5) + torch.linspace(-1e-6, 1e-6, 100_001)
    mu[-1] = 0.75
    before = mu.double().numpy()
    sigma = torch.full((100_001,), 1.0)
    clustered = cluster_round(mu, sigma, fraction=1.0, radius=1.0, radius_growth=2.0, b=1)
    clustered.apply_(mu, sigma, "std_mu")
    assert len(clustered.values) == 1
    np.testing.assert_allclose(sigma[0].item(), before.std(), rtol=2e-6)


@pytest.mark.parametrize("name", ["mean_mu", "STD_MU", ""])
def test_an_unknown_name_is_refused_before_anything_is_written(weights: tuple[Tensor, Tensor], name: str) -> None:
    mu, sigma = (tensor.clone() for tensor in weights)
    clustered = cluster_round(mu, sigma, fraction=0.8, radius=1.0, radius_growth=2.0, b=7)
    with pytest.raises(UserError, match=f"sigma_join '{name}' does not exist; use one of std_mu, mean_sigma, keep_the"):
        clustered.apply_(mu, sigma, name)
    assert torch.equal(mu, weights[0])


def test_other_tensors_than_those_clustered_are_refused(weights: tuple[Tensor, Tensor]) -> None:
    clustered, mu, sigma = joined(weights, "std_mu")
    with pytest.raises(
        UserError, match=r"mu must have shape \(4000,\) on cpu, but is torch.float32 of shape \(3999,\)"
    ):
        clustered.apply_(mu[1:], sigma, "std_mu")
    with pytest.raises(UserError, match=r"sigma must be a flat tensor of torch.float32, but is torch.float64"):
        clustered.apply_(mu, sigma.double(), "std_mu")
