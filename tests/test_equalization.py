"""Layers made equally large: the network computes what it did."""

import pytest
import torch
from torch import nn

from pwfn.config import ModelConfig
from pwfn.equalization import equalize_, sizes
from pwfn.errors import UserError
from pwfn.models import build_network
from pwfn.parameters import split_parameters


def network() -> nn.Module:
    """Layers of very different sizes, with and without BatchNorm after them, one filter of them dead."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
        nn.Linear(4 * 36, 10),
        nn.BatchNorm1d(10),
    )
    with torch.no_grad():
        for layer, factor in zip((layers[0], layers[3], layers[8]), (0.01, 3.0, 20.0), strict=True):
            layer.weight.mul_(factor)
        layers[3].weight[2] *= 1e-4
        for norm in (layers[1], layers[4], layers[9]):
            norm.weight.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.01, 2)
    return layers.eval()


@pytest.mark.parametrize("per", ["layer", "filter"])
def test_the_network_computes_what_it_did_from_layers_of_one_size(per):
    layers = network()
    images = torch.randn(50, 1, 8, 8)
    before, dead = layers(images), layers[3].weight[2].square().mean().sqrt()
    equalize_(layers, images[:4], per)
    torch.testing.assert_close(layers(images), before, rtol=1e-4, atol=1e-4)
    target = layers[6].weight.square().mean().sqrt()
    for layer in (layers[0], layers[3], layers[8]):
        found = sizes(layer.weight, per)
        alive = torch.arange(len(found)) != 2 if layer is layers[3] and per == "filter" else slice(None)
        torch.testing.assert_close(found[alive], target.expand_as(found[alive]))
    assert layers[3].weight[2].square().mean().sqrt() < dead  # shrunk with its layer, which was three times as large


def test_a_network_without_norm_layers_stays_as_it_is():
    layers = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5, elementwise_affine=False), nn.Linear(5, 3))
    before = [parameter.clone() for parameter in layers.parameters()]
    equalize_(layers, torch.randn(4, 6), "layer")
    assert all(torch.equal(now, then) for now, then in zip(layers.parameters(), before, strict=True))


def test_layers_that_all_feed_a_batchnorm_get_the_size_of_all_weights_and_zeros_stay():
    layers = nn.Sequential(
        nn.Linear(6, 40), nn.BatchNorm1d(40), nn.Linear(40, 50), nn.BatchNorm1d(50), nn.Linear(50, 5), nn.BatchNorm1d(5)
    )
    nn.init.zeros_(layers[4].weight)
    together = torch.cat([layer.weight.flatten() for layer in layers[::2]]).square().mean().sqrt()
    equalize_(layers, torch.randn(4, 6), "layer")
    for layer in layers[:4:2]:
        torch.testing.assert_close(layer.weight.square().mean().sqrt(), together)
    assert not layers[4].weight.any()


def test_a_layer_that_runs_twice_stays_as_it_is():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.norm(self.layer(self.layer(images)))

    twice = Twice()
    before = twice.layer.weight.clone()
    equalize_(twice, torch.randn(4, 6), "layer")
    assert torch.equal(twice.layer.weight, before)


def test_a_layer_that_more_than_its_batchnorm_sees_is_refused():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm, self.head = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            inner = self.layer(images)
            return self.head(inner + self.norm(inner))

    shortcut = Shortcut()
    shortcut.head.weight.data.mul_(4)
    with pytest.raises(UserError, match=r"^model.equalize=layer: .* outputs change by .*%.*; use model.equalize=none$"):
        equalize_(shortcut, torch.randn(4, 6), "layer")


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18", "mobilenetv3_small_050", "densenet121"])
def test_real_networks(name):
    built = build_network(ModelConfig(name=name), num_classes=10, in_channels=3).eval()
    images = torch.randn(4, 3, 64, 64)
    before, sizes_before = built(images), [p.square().mean().item() for p in built.parameters() if p.ndim == 4]
    equalize_(built, images[:2], "layer")
    torch.testing.assert_close(built(images), before, rtol=1e-3, atol=1e-3 * before.abs().max().item())
    sizes_after = [p.square().mean().item() for p in built.parameters() if p.ndim == 4]
    assert sum(now != then for now, then in zip(sizes_after, sizes_before, strict=True)) > 0.45 * len(sizes_before)


def unequal(name: str, **kwargs) -> nn.Module:
    """A transformer whose layers, columns and norm layers have very different sizes."""
    built = build_network(ModelConfig(name=name, kwargs=kwargs), num_classes=10, in_channels=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            factor = 4 * torch.rand(1, generator=generator) + 0.2
            parameter.mul_(factor).add_(0.01 * torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 2:
                parameter.mul_(torch.rand(parameter.shape[1], generator=generator) + 0.5)
    return built


@pytest.mark.parametrize("per", ["layer", "filter"])
@pytest.mark.parametrize(
    ("name", "kwargs", "num_left"),
    [("cifar_cct2", {}, 2), ("test_vit", {"img_size": 32}, 6), ("test_vit", {"img_size": 32, "act_layer": "relu"}, 0)],
)
def test_a_transformer_computes_what_it_did_from_layers_of_one_size(name, kwargs, num_left, per):
    built = unequal(name, **kwargs)
    images = torch.randn(8, 3, 32, 32)
    before = built(images)
    rest = {name for name, parameter in split_parameters(built).fixable.items() if parameter.ndim > 1}
    left = equalize_(built, images[:4], per)
    torch.testing.assert_close(built(images), before, rtol=1e-3, atol=1e-4 * before.abs().max().item())
    assert len([line for line in left if "GELU in front of it is not positively homogeneous" in line]) == num_left
    # The final norm of a CCT feeds the pooled tokens too, not only their scores.
    pooled = [line for line in left if line.startswith("pool: the outputs would change by ")]
    assert len(left) == num_left + len(pooled)
    assert len(pooled) == (name == "cifar_cct2")
    weights = dict(built.named_parameters())
    equal = [f"blocks.{block}.{part}.weight" for block in range(len(built.blocks))
             for part in ("attn.qkv", "attn.proj", "mlp.fc1", *(() if num_left else ("mlp.fc2",)))]  # fmt: skip
    others = [weights[name].flatten() for name in rest - {*equal, "pool.weight"}]
    target = torch.cat(others).square().mean().sqrt()
    for part in equal:
        found = sizes(weights[part].transpose(0, 1), per)
        torch.testing.assert_close(found, target.expand_as(found), rtol=1e-4, atol=0)


def test_what_would_change_the_outputs_is_put_back_and_named():
    """Between values and projection there is a LayerNorm, which takes up the factor in place of the values."""
    built = unequal("test_vit", img_size=32, scale_attn_norm=True)
    images = torch.randn(4, 3, 32, 32)
    before = built(images)
    left = [line for line in equalize_(built, images, "layer") if "GELU" not in line]
    torch.testing.assert_close(built(images), before, rtol=1e-3, atol=1e-4 * before.abs().max().item())
    assert len(left) == 6
    assert all(line.startswith(f"the values of blocks.{block}.attn: ") for block, line in enumerate(left))
