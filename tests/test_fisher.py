"""The diagonal Fisher information against its closed form and its definition."""

import pytest
import torch
from torch import nn

from pwfn.config import ModelConfig
from pwfn.fisher import diagonal_fisher, random_direction
from pwfn.models import build_network
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas


def fisher(network, images, *, seed=0, batch_size=16):
    batches = [(batch, torch.zeros(len(batch), dtype=torch.int64)) for batch in images.split(batch_size)]
    return diagonal_fisher(network, batches, generator=torch.Generator().manual_seed(seed), replicas=Replicas())


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 3)
    )


def test_directions_have_the_covariance_of_a_drawn_label():
    logits = torch.tensor([2.0, 0.0, -1.0, 4.0])
    p = logits.softmax(dim=0)
    v = random_direction(logits.expand(200_000, -1), torch.Generator().manual_seed(0))
    assert torch.allclose(v.T @ v / len(v), p.diag() - p.outer(p), atol=2e-3)
    assert torch.allclose(v.mean(dim=0), torch.zeros(4), atol=4e-3)


def test_softmax_regression_has_its_closed_form():
    torch.manual_seed(0)
    network, images = nn.Linear(3, 4), torch.randn(4, 3)
    p = network(images).softmax(dim=1).detach()
    of_bias = (p * (1 - p)).mean(dim=0)
    of_weight = torch.einsum("nc,nd->cd", p * (1 - p), images**2) / len(images)
    estimate = fisher(network, images.repeat(1000, 1))
    assert torch.allclose(estimate, torch.cat([of_weight.flatten(), of_bias]), rtol=0.1)


def test_deep_network_agrees_with_the_definition():
    """E over classes of the squared gradient of log p, one class and one image after the other."""
    network, images = small_network().eval(), torch.randn(3, 2, 4, 4)
    parameters = list(split_parameters(network).fixable.values())
    exact = 0
    for image in images:
        log_p = network(image[None]).log_softmax(dim=1)[0]
        for each in log_p:
            gradient = torch.autograd.grad(each, parameters, retain_graph=True)
            exact += each.exp().detach() * torch.cat([g.flatten() for g in gradient]) ** 2 / len(images)
    estimate = fisher(network, images.repeat(1000, 1, 1, 1))
    assert torch.allclose(estimate, exact, rtol=0.15, atol=1e-3 * float(exact.max()))
    # And in the order of the flat parameters: the convolution's first.
    assert float(estimate[: parameters[0].numel()].sum()) == pytest.approx(float(exact[: 2 * 3 * 9].sum()), rel=0.1)


def test_batches_do_not_matter_and_the_seed_does():
    network, images = small_network(), torch.randn(10, 2, 4, 4)
    whole = fisher(network, images, batch_size=10)
    assert torch.equal(whole, fisher(network, images, batch_size=3))
    assert not torch.equal(whole, fisher(network, images, seed=1))


def test_the_network_stays_as_it_is():
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():  # as where a method calls it
        assert fisher(network, torch.randn(4, 2, 4, 4)).sum() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_weights_without_influence_have_none():
    network = small_network()
    network.add_module("unused", nn.Linear(2, 2))
    network.forward = lambda images: network[4](network[3](network[2](network[1](network[0](images)))))
    with torch.no_grad():
        network[1].weight[1] = 0  # a dead channel
        network[1].bias[1] = -1
    estimate = fisher(network, torch.randn(8, 2, 4, 4))
    convolution, rest = estimate[:54].view(3, -1), estimate[54:]
    assert (convolution.sum(dim=1) > 0).tolist() == [True, False, True]
    assert (rest[-6:] == 0).all()


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto", "densenet121"])
def test_families_of_networks(name):
    size = {"image_size": 32} if name.startswith("vit") else {}
    network = build_network(ModelConfig(name=name), num_classes=5, in_channels=3, seed=0, **size)
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    estimate = fisher(network, images)
    assert estimate.shape == (split_parameters(network).num_fixable,)
    assert estimate.isfinite().all()
    assert (estimate > 0).float().mean() > 0.05
