"""The fixed set and the flat buffers behind a network."""

import copy

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import torch
from timm.layers import CondConv2d
from torch import nn

from pwfn.errors import UserError
from pwfn.parameters import FlatParameters, left_out, shares_left_out, split_parameters


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


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Conv3d(2, 4, 3), nn.Linear(2, 4), nn.Bilinear(2, 3, 4),
        nn.ConvTranspose1d(2, 4, 3), nn.ConvTranspose2d(2, 4, 3), nn.ConvTranspose3d(2, 4, 3),
        nn.RNN(2, 4), nn.LSTM(2, 4, num_layers=2, bidirectional=True), nn.GRU(2, 4), nn.LSTMCell(2, 4),
        nn.GRUCell(2, 4), nn.RNNCell(2, 4), nn.MultiheadAttention(4, 2, add_bias_kv=True, kdim=3, vdim=3),
        CondConv2d(2, 4, 3, bias=True, num_experts=3),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_whose_every_parameter_is_in_the_fixed_set(layer):
    sets = split_parameters(nn.Sequential(layer, nn.BatchNorm2d(4)))
    assert list(sets.fixable) == [f"0.{name}" for name, _ in layer.named_parameters()]
    assert list(sets.rest) == ["1.weight", "1.bias"]


class Raw(nn.Module):
    """Parameters outside any layer, as timm's attention has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 2, bias=False), nn.LayerNorm(2)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.rel_pos_h = nn.Parameter(torch.zeros(5, 2))
        self.pos_embed, self.gamma = nn.Parameter(torch.zeros(1, 9, 2)), nn.Parameter(torch.zeros(2))


def test_biases_of_attention_share_values_and_embeddings_do_not():
    network = Raw()
    sets = split_parameters(network)
    assert list(sets.fixable) == ["relative_position_bias_table", "rel_pos_h", "layer.weight"]
    assert [(one.kind, one.names, one.num_parameters) for one in left_out(network, sets)] == [
        ("Raw.pos_embed", ("pos_embed",), 18),
        ("norm layers", ("norm.weight", "norm.bias"), 4),
        ("Raw.gamma", ("gamma",), 2),
    ]
    assert sets.num_parameters == 56
    assert shares_left_out(network, sets) == ("Raw.pos_embed 32.14%", "norm layers 7.14%", "Raw.gamma 3.57%")


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
        flat.forget_()
        network(inputs).square().mean().backward()
        flat.collect_()
        assert torch.allclose(flat.gradient, torch.cat([gradient.flatten() for gradient in gradients]))


def test_writing_the_buffer_changes_the_network():
    network = nn.Linear(3, 2)
    flat = FlatParameters(network.parameters())
    flat.values.fill_(0.5)
    assert (network(torch.ones(1, 3)) == 2.0).all()
    assert [piece.numel() for piece in flat.pieces(flat.values)] == [6, 2]


def test_weights_that_lie_channels_last_stay_so_and_so_do_their_gradients():
    built = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(180, 2))
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    changed = copy.deepcopy(built).to(memory_format=torch.channels_last)
    flats = [FlatParameters(network.parameters()) for network in (built, changed)]
    for network, flat in zip((built, changed), flats, strict=True):
        network(images).square().mean().backward()
        flat.collect_()
    of_built, of_changed = (torch.cat([p.grad.flatten() for p in each.parameters()]) for each in (built, changed))
    torch.testing.assert_close(of_changed, of_built)
    assert torch.equal(flats[0].gradient, of_built)
    assert torch.equal(flats[1].gradient, flats[1].arranged(of_changed))
    assert not torch.equal(flats[1].gradient, of_changed)
    weight = changed[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert weight.stride() == weight.grad.stride()
    assert torch.equal(flats[1].values[:27], weight[0].permute(1, 2, 0).flatten())


def test_given_buffers_are_used_as_they_are():
    network = nn.Linear(3, 2)
    values, gradient = torch.empty(8), torch.zeros(8)
    flat = FlatParameters(network.parameters(), values, gradient)
    network(torch.ones(1, 3)).sum().backward()
    flat.collect_()
    assert flat.values is values
    assert gradient.abs().sum() > 0


def test_parts_of_a_batch_add_up_and_what_is_not_used_has_no_gradient():
    network = Tied()
    unused = nn.Parameter(torch.ones(3))
    flat = FlatParameters([*network.parameters(), unused])
    inputs = torch.randn(8, 4)
    found = []
    for parts in (1, 2):
        flat.gradient.fill_(7.0)
        flat.forget_()
        for part in inputs.chunk(parts):
            network(part).square().sum().backward()
        flat.collect_()
        found.append(flat.gradient.clone())
    torch.testing.assert_close(*found)
    assert found[0].any()
    assert not found[0][-3:].any()
