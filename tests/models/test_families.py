"""One network of every family of timm's: built, exported, loaded, called at once; its count of values, its coverage."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import timm
import torch
from families import FAST, LOOKED_UP, LOW_COVERAGE, SIDES, SMALLEST, UNUSUAL
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pwfn.config import ModelConfig
from pwfn.export import describe_network, encode_network, load
from pwfn.models import build_network, describe_loading, preprocessing_of
from pwfn.parameters import split_parameters

NAMES = [*SMALLEST.values(), *UNUSUAL]
PATIENT = (pytest.mark.slow, pytest.mark.timeout(1800))  # 400 million weights are encoded in minutes
CASES = [pytest.param(name, marks=() if name in FAST else PATIENT) for name in NAMES]
VALUES = torch.tensor([-0.11, -0.05, -0.02, 0.0, 0.02, 0.05, 0.11])
"""What the trained weights of these tests are rounded to."""
PRODUCTS = {
    torch.matmul, torch.bmm, torch.mm, torch.einsum, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm,
    Tensor.mm, torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d,
    torch.conv_transpose3d, nn.functional.linear, torch.lstm, torch.gru, nn.functional.bilinear,
}  # fmt: skip
"""Functions that sum products of their operands."""


def test_every_family_has_a_case() -> None:
    families = {name for name in timm.models.list_modules() if find_spec(f"timm.models.{name}")}  # not ours, nor tests'
    assert set(SMALLEST) == families
    assert all(name in timm.list_models(module=module) for module, name in SMALLEST.items())


def _network(name: str, **settings: Any) -> nn.Module:
    return build_network(ModelConfig(name=name), num_classes=7, in_channels=3, **settings)


def _side(name: str) -> int | None:
    """A small image where the network takes any size; its own where it does not."""
    record = timm.get_pretrained_cfg(name)
    return SIDES.get(name, None if record.fixed_input_size else min(record.input_size[-1], 96))


@torch.no_grad()
def _train(network: nn.Module) -> None:
    """Change every parameter after the network was called, and give the fixed set few values: what a trial does."""
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    for parameter in split_parameters(network).fixable.values():
        nearest = torch.bucketize(parameter, (VALUES[1:] + VALUES[:-1]) / 2)
        parameter.copy_(VALUES[nearest])


@pytest.mark.parametrize("name", CASES)
class TestEveryFamily:
    @torch.inference_mode()
    def test_a_loaded_network_answers_at_once_as_the_trained_one(self, name: str, tmp_path: Path) -> None:
        network = _network(name, image_size=_side(name))
        side = preprocessing_of(network).image_size
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        before = network(images)
        _train(network)
        after = network(images)
        assert not torch.equal(after, before)
        (tmp_path / "net.safetensors").write_bytes(encode_network(network, describe_network(network)))
        loaded = load(tmp_path / "net.safetensors")
        assert torch.equal(loaded(images), after)

        fixable = split_parameters(loaded).fixable
        counts = torch.stack([torch.stack([(p == value).sum() for value in VALUES]) for p in fixable.values()]).sum(0)
        assert (counts > 0).all()
        assert counts.sum() == sum(p.numel() for p in fixable.values())

        understood = describe_loading(loaded)
        assert understood.num_parameters == sum(parameter.numel() for parameter in network.parameters())
        assert understood.coverage == sum(p.numel() for p in fixable.values()) / understood.num_parameters
        if name in LOW_COVERAGE:
            assert understood.coverage == pytest.approx(LOW_COVERAGE[name], abs=2e-3)
            assert any("of the parameters share values; left out are" in line for line in understood.warnings)
        else:
            assert understood.coverage > 0.95

    def test_whatever_multiplies_an_activation_shares_values(self, name: str) -> None:
        """What is an operand of a product, unchanged but for its shape, is found by running the network."""
        with torch.device("meta"):  # shapes are enough
            network = timm.create_model(name).eval()
            side = timm.get_pretrained_cfg(name).input_size[-1]
            with _Products(network) as products, torch.no_grad():
                network(torch.zeros(1, 3, side, side))
        assert products.found
        assert products.found - LOOKED_UP <= set(split_parameters(network).fixable)


class _Products(TorchFunctionMode):
    """Collects the names of the parameters that are operands of products, through any views of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in network.named_parameters()}
        self.found: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            for operand in _tensors((args, kwargs)):
                while operand._base is not None:
                    operand = operand._base
                if id(operand) in self.names:
                    self.found.add(self.names[id(operand)])
        return func(*args, **(kwargs or {}))


def _tensors(nested: Any) -> list[Tensor]:
    if isinstance(nested, Tensor):
        return [nested]
    values = nested.values() if isinstance(nested, dict) else nested if isinstance(nested, list | tuple) else ()
    return [tensor for value in values for tensor in _tensors(value)]
