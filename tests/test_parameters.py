"""The fixed set and the flat buffers behind a network."""

import pytest
import torch
from torch import nn

from pwfn.errors import UserError
from pwfn.parameters import FlatParameters, split_parameters


class Tied(nn.Module):
    """Two layers that share a weight, a raw parameter, a norm layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.token = nn.Parameter(torch.zeros(4))
        self.norm = nn.LayerNorm(4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(self.first(inputs) + self.token))


def test_the_fixed_set_is_convolutions_and_linear_layers_with_their_biases():
    sets = split_parameters(Tied())
    assert list(sets.fixable) == ["first.weight", "first.bias"]
    assert list(sets.rest) == ["token", "norm.weight", "norm.bias"]
    assert sets.num_fixable == 20
    assert sets.coverage == pytest.approx(20 / 32)
    assert list(split_parameters(Tied(), include_norm=True).rest) == ["token"]


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(UserError, match="LayerNorm has no convolution or linear layer: nothing to fix"):
        split_parameters(nn.LayerNorm(3))


def test_half_precision_is_refused_by_name():
    with pytest.raises(UserError, match=r"parameter weight is torch\.float16; only float32"):
        split_parameters(nn.Linear(2, 2).half())


def test_flat_buffers_change_nothing_and_receive_every_gradient():
    network, inputs = Tied(), torch.randn(8, 4)
    expected = network(inputs)
    expected.square().mean().backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    flat = FlatParameters(network.parameters())
    assert torch.equal(network(inputs), expected)
    for _ in range(2):
        flat.gradient.zero_()
        network(inputs).square().mean().backward()
        assert torch.allclose(flat.gradient, torch.cat([gradient.flatten() for gradient in gradients]))


def test_writing_the_buffer_changes_the_network():
    network = nn.Linear(3, 2)
    flat = FlatParameters(network.parameters())
    flat.values.fill_(0.5)
    assert (network(torch.ones(1, 3)) == 2.0).all()
    assert [piece.numel() for piece in flat.pieces(flat.values)] == [6, 2]


def test_given_buffers_are_used_as_they_are():
    network = nn.Linear(3, 2)
    values, gradient = torch.empty(8), torch.zeros(8)
    flat = FlatParameters(network.parameters(), values, gradient)
    network(torch.ones(1, 3)).sum().backward()
    assert flat.values is values
    assert gradient.abs().sum() > 0
