"""Values that are the means of their weights instead of sums of powers of two."""

from math import fsum

import numpy as np
import pytest
import torch

from pwfn.codebook import Codebook
from pwfn.methods.pwfn.clustering import cluster_round

OPTIONS = {"radius": 1.0, "radius_growth": 2.0, "b": 7}


def realistic(num_weights):
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(num_weights, generator=generator) * 0.05
    mu[: num_weights // 300] *= 14
    return mu, torch.rand(num_weights, generator=generator) * 0.01


@pytest.mark.parametrize("growth", ["alternate", "nearest"])
@pytest.mark.parametrize("num_weights", [3000, 40_000])
def test_each_value_is_the_mean_of_its_weights(growth, num_weights):
    mu, sigma = realistic(num_weights)
    lattice = cluster_round(mu, sigma, fraction=0.97, growth=growth, **OPTIONS)
    assert len(set(lattice.values)) < len(lattice.values)  # some values are chosen twice
    free = lattice.at_means(mu)
    assert torch.equal(free.cluster_of_weight, lattice.cluster_of_weight)
    for value in set(lattice.values):
        clusters = np.flatnonzero(lattice.values == value)
        members = mu[torch.isin(free.cluster_of_weight, torch.from_numpy(clusters))].tolist()
        mean = 0.0 if value == 0 else fsum(members) / len(members)
        assert free.values[clusters] == pytest.approx(mean, rel=2.0**-23)
        assert set(free.values[clusters]) == {float(np.float32(free.values[clusters[0]]))}
    assert (free.values[lattice.values != 0] != lattice.values[lattice.values != 0]).any()
    assert np.abs(free.values - lattice.values).max() < 0.2


def test_the_network_holds_the_means_and_the_groups_keep_their_spread():
    mu, sigma = realistic(3000)
    lattice = cluster_round(mu, sigma, fraction=0.8, **OPTIONS)
    free = lattice.at_means(mu)
    written, of_lattice = [(mu.clone(), sigma.clone()) for _ in range(2)]
    free.apply_(*written, "std_mu")
    lattice.apply_(*of_lattice, "std_mu")
    found = Codebook.of(written[0][free.fixed])
    np.testing.assert_array_equal(free.codebook.values, found.values)
    np.testing.assert_array_equal(free.codebook.counts, found.counts)
    torch.testing.assert_close(written[1], of_lattice[1], rtol=1e-5, atol=1e-8)
    moved = [((now - mu)[free.fixed] ** 2).sum() for now, _ in (written, of_lattice)]
    assert moved[0] < moved[1]


def test_zero_stays_zero_and_equal_means_become_one_value():
    mu = torch.tensor([0.004, 0.003, 0.25, 0.25, 0.25])
    sigma = torch.tensor([1e-4, 1e-4, 0.01, 0.01, 1e-6])
    lattice = cluster_round(mu, sigma, fraction=1.0, **OPTIONS)
    assert set(lattice.at_means(mu).values) == {0.0, 0.25}
    one_mean = type(lattice)(
        np.array([0.25, 0.5]), np.array([2, 1]), torch.tensor([0, 0, 1], dtype=torch.int32), 1.0, mu[:0]
    ).at_means(torch.tensor([0.25, 0.5, 0.375]))
    assert one_mean.codebook.values.tolist() == [0.375]
    assert one_mean.codebook.counts.tolist() == [3]


@pytest.mark.parametrize("place", [0.25, 0.27])
def test_new_weights_join_the_mean_of_those_fixed_before(place):
    chosen, sigma = torch.tensor([0.25, 0.26, 0.49, 0.51, 0.52]), torch.full((5,), 0.05)
    fixed = torch.tensor([True, False, False, False, False])
    mu = torch.where(fixed, place, chosen)
    lattice = cluster_round(chosen, sigma, fraction=1.0, fixed=fixed, recluster="free", **OPTIONS)
    free = lattice.at_means(mu)
    assert sorted(lattice.values) == [0.25, 0.5]
    assert sorted(free.values) == pytest.approx([place, (0.49 + 0.51 + 0.52) / 3], abs=1e-7)
    assert free.codebook.counts.tolist() == [2, 3]
    free.apply_(mu, sigma, "std_mu")
    assert mu[:2].tolist() == [np.float32(place)] * 2
    assert free.codebook.values.tolist() == mu.unique().tolist()


def test_no_weights_have_no_means():
    empty = torch.empty(0)
    assert len(cluster_round(empty, empty, fraction=1.0, **OPTIONS).at_means(empty).values) == 0
