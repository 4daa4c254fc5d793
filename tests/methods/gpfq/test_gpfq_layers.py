"""Which layers run when, and that their samples times their weight are their outputs."""

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import timm
import torch
from torch import nn

from pwfn.methods.gpfq import layers
from pwfn.methods.gpfq.layers import call_of, execution_order, fixable_layers
from pwfn.parameters import split_parameters

CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), (2, 4, 7, 9)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 4, 8, 7)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=(1, 2), padding=2), (2, 4, 7, 9)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 7, 7)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, stride=2), (2, 4, 7, 7)),
    "same": (nn.Conv2d(4, 6, (2, 3), padding="same"), (2, 4, 7, 7)),
    "same dilated": (nn.Conv2d(4, 6, 4, padding="same", dilation=3), (2, 4, 9, 9)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 7)),
    "reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 7)),
    "circular": (nn.Conv2d(4, 6, 5, padding=2, padding_mode="circular"), (2, 4, 7, 7)),
    "without bias": (nn.Conv2d(4, 6, 3, bias=False), (2, 4, 7, 7)),
    "1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    "3d": (nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1), dilation=(1, 2, 1)), (2, 2, 3, 5, 6)),
    "timm same": (timm.layers.create_conv2d(4, 6, 3, stride=2, padding="same"), (2, 4, 8, 7)),
    "linear": (nn.Linear(5, 6), (7, 5)),
    "tokens": (nn.Linear(5, 6), (2, 3, 4, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("chunk", [1, 300, 2**23])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_samples_times_weight_plus_bias_is_the_output(kind, chunk, monkeypatch):
    monkeypatch.setattr(layers, "CHUNK_ELEMENTS", chunk)
    module, shape = CONVOLUTIONS[kind]
    network = nn.Sequential(module)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    call = call_of(network, fixable_layers(network)[0], inputs)
    pieces = list(call.samples())
    assert len(pieces) > 1 or chunk != 1
    assert pieces[0].shape[:2] == (call.groups, call.num_features)
    outputs = (call.matrices(module.weight) @ torch.cat(pieces, dim=2)).flatten(0, 1)
    if module.bias is not None:
        outputs = outputs + module.bias[:, None]
    expected = network(inputs)
    expected = expected.movedim(1, 0) if isinstance(module, nn.modules.conv._ConvNd) else expected.movedim(-1, 0)
    assert torch.allclose(outputs, expected.flatten(1), atol=1e-5)


class Backwards(nn.Module):
    """Registered in another order than it runs, with every kind of layer that path following cannot treat."""

    def __init__(self):
        super().__init__()
        self.third, self.second, self.first = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.unused, self.twice = nn.Linear(4, 4), nn.Linear(4, 4)
        self.one, self.same_as_one = nn.Linear(4, 4), nn.Linear(4, 4)
        self.same_as_one.weight = self.one.weight
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.other_bias = nn.Linear(4, 4)
        self.standardized = timm.layers.StdConv2d(4, 4, 1)
        self.scaled = timm.layers.ScaledStdConv2d(4, 4, 1)
        self.functional = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.third(self.second(self.first(x)).relu()).relu()
        x = self.same_as_one(self.one(self.twice(self.twice(x))))
        x = self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]
        x = nn.functional.linear(x, self.other_bias.weight, self.second.bias)
        x = self.scaled(self.standardized(x[:, :, None, None]))[:, :, 0, 0]
        return self.head(nn.functional.linear(input=x, weight=self.functional.weight, bias=self.third.bias))


def test_layers_come_in_the_order_in_which_they_run():
    network = Backwards().eval()
    treated, untreated = execution_order(network, fixable_layers(network), torch.randn(3, 4))
    assert [layer.name for layer in treated] == ["first", "second", "third", "functional", "head"]
    assert [layer.name for layer in untreated] == [
        "unused", "twice", "one", "same_as_one", "attention", "attention.out_proj",
        "other_bias", "standardized", "scaled",
    ]  # fmt: skip


def test_layers_hold_the_fixed_set_once():
    for network in (Backwards(), nn.Linear(2, 2), timm.create_model("resnet18")):
        owned = [id(parameter) for layer in fixable_layers(network) for parameter in layer.parameters(network)]
        assert sorted(owned) == sorted(id(parameter) for parameter in split_parameters(network).fixable.values())


def test_a_forward_pass_stops_at_the_layer():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=None)).train()
    first, second = fixable_layers(network)
    images = torch.randn(5, 4)
    assert torch.equal(call_of(network, second, images).inputs, network[0](images).relu())
    assert call_of(network, first, images).inputs is images
    assert network[3].num_batches_tracked == 0


def test_a_layer_that_does_not_run_is_not_found():
    network = Backwards().eval()
    layer = next(layer for layer in fixable_layers(network) if layer.name == "unused")
    assert call_of(network, layer, torch.randn(3, 4)) is None
