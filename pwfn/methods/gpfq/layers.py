"""The layers of a network as linear maps of their samples: in which order they run, and on what inputs.

A layer is found by the call of torch's `linear` or `conv1d/2d/3d` that takes its weight, not by its module: so the
inputs are those after any padding mode or "same" padding, and stride, padding, dilation and groups are those that
really applied. A module that computes with something else than its weight (a standardised one) makes no such call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.overrides import TorchFunctionMode

from pwfn.parameters import TRANSPOSED_LAYERS, is_bias, is_fixable, is_mixture, split_parameters

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
"""Torch's convolutions and the dimensions of their images."""
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")

CHUNK_ELEMENTS = 2**23
"""Numbers of one unrolled piece of a layer's inputs (32 MB); bounds memory whatever the batch."""


@dataclass(frozen=True)
class FixableLayer:
    """A module that owns parameters of the fixed set, and which of them are in it under its name."""

    name: str
    own: tuple[str, ...]
    """`weight` and `bias` first, as far as they are its own; not one that it shares with an earlier layer."""

    def module(self, network: nn.Module) -> nn.Module:
        """Return its module in a network of this architecture."""
        return network.get_submodule(self.name)

    def parameters(self, network: nn.Module) -> list[nn.Parameter]:
        """Return its own parameters in a network of this architecture."""
        return [self.module(network).get_parameter(name) for name in self.own]

    def rows(self, network: nn.Module) -> list[Tensor]:
        """View its weights as `(neurons, features)`, those included that it shares; biases and tables are none.

        A mixture of experts has a row for each neuron of each expert, a transposed convolution one for each of its
        output channels.
        """
        module = self.module(network)
        own = dict(module.named_parameters(recurse=False))
        weights = [parameter for name, parameter in own.items() if not self.is_beside_rows(network, name)]
        if is_mixture(module):
            num_features = math.prod(cast(tuple[int, ...], module.weight_shape)[1:])
            return [weight.view(-1, num_features) for weight in weights]
        if isinstance(module, TRANSPOSED_LAYERS):
            return [weight.transpose(0, 1).flatten(1) for weight in weights]
        return [weight.flatten(1) for weight in weights]

    def biases(self, network: nn.Module) -> Tensor:
        """Join what is no row, `(numbers,)`: biases, and tables of attention that belong to no layer."""
        own = dict(self.module(network).named_parameters(recurse=False))
        beside = [p.detach().flatten() for name, p in own.items() if self.is_beside_rows(network, name)]
        return torch.cat(beside) if beside else next(iter(own.values())).new_empty(0)

    def is_beside_rows(self, network: nn.Module, name: str) -> bool:
        """Whether a parameter of its module is a bias, or anything else that is no matrix of weights."""
        module = self.module(network)
        return is_bias(name) or not is_fixable(module) or module.get_parameter(name).ndim < 2


def fixable_layers(network: nn.Module) -> list[FixableLayer]:
    """List the layers in registration order; together they own the fixed set, each parameter once."""
    fixable = split_parameters(network).fixable
    layers = []
    for name, module in network.named_modules():
        names = dict(module.named_parameters(recurse=False))
        own = tuple(key for key in names if (f"{name}.{key}" if name else key) in fixable)
        if own:
            layers.append(FixableLayer(name, tuple(sorted(own, key=("weight", "bias", *own).index))))
    return layers


@dataclass(frozen=True)
class LayerCall:
    """One call of `linear` or a convolution: its parameters as they were passed, and its inputs."""

    weight: Tensor
    bias: Tensor | None
    inputs: Tensor
    num_dimensions: int
    """Of a convolution's images; 0 for a linear layer."""
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, function: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any]) -> LayerCall:
        """Read the arguments of such a call."""
        named = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        n = CONVOLUTIONS.get(function, 0)
        padding = named.get("padding", 0)
        return cls(
            named["weight"],
            named.get("bias"),
            named["input"],
            n,
            stride=_per_dimension(named.get("stride", 1), n),
            padding=padding if isinstance(padding, str) else _per_dimension(padding, n),
            dilation=_per_dimension(named.get("dilation", 1), n),
            groups=named.get("groups", 1),
        )

    @property
    def num_features(self) -> int:
        """Inputs of one neuron."""
        return self.weight[0].numel()

    def matrices(self, weight: Tensor) -> Tensor:
        """View a weight of this layer as `(groups, neurons, features)`."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def samples(self) -> Iterator[Tensor]:
        """Yield the samples in pieces `(groups, features, samples)`: image patches, tokens, or images as columns.

        `matrices(weight) @ samples` plus the bias is the output of the call.
        """
        if self.num_dimensions == 0:
            rows = self.inputs.reshape(-1, self.num_features)
            for piece in torch.split(rows, max(1, CHUNK_ELEMENTS // self.num_features)):
                yield piece.mT[None]
            return
        elements = self._unrolled(self.inputs[:1]).numel()
        for images in torch.split(self.inputs, max(1, CHUNK_ELEMENTS // elements)):
            patches = self._unrolled(images)  # images, groups, channels, positions per dimension, kernel per dimension
            n = self.num_dimensions
            positions, kernel = range(3, 3 + n), range(3 + n, 3 + 2 * n)
            yield patches.permute(1, 2, *kernel, 0, *positions).reshape(self.groups, self.num_features, -1)

    def _unrolled(self, images: Tensor) -> Tensor:
        """View images as patches `(images, groups, channels of a group, *positions, *kernel)`."""
        kernel = self.weight.shape[2:]
        patches = pad(images, self._margins())
        for axis, (size, stride, dilation) in enumerate(zip(kernel, self.stride, self.dilation, strict=True), start=2):
            patches = patches.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        return patches.reshape(len(images), self.groups, -1, *patches.shape[2:])

    def _margins(self) -> list[int]:
        """Zeros before and after each dimension, the last dimension first as torch's `pad` wants it."""
        if self.padding == "same":  # what is odd goes to the end
            totals = [d * (size - 1) for d, size in zip(self.dilation, self.weight.shape[2:], strict=True)]
            pairs = [(total // 2, total - total // 2) for total in totals]
        elif self.padding == "valid":
            pairs = [(0, 0)] * self.num_dimensions
        else:
            pairs = [(int(width), int(width)) for width in self.padding]
        return [width for pair in reversed(pairs) for width in pair]


def _per_dimension(value: int | Sequence[int], num_dimensions: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * num_dimensions if len(values) == 1 else values


class _Listener(TorchFunctionMode):
    """Shows every call of `linear` or a convolution to a listener before it runs."""

    def __init__(self, listen: Callable[[LayerCall], None]) -> None:
        super().__init__()
        self.listen = listen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear or func in CONVOLUTIONS:
            self.listen(LayerCall.of(func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Reached(Exception):  # noqa: N818  (no error: what was waited for)
    """Ends a forward pass at the call that was waited for."""


def execution_order(
    network: nn.Module, layers: Sequence[FixableLayer], images: Tensor
) -> tuple[list[FixableLayer], list[FixableLayer]]:
    """Sort layers by when they run; apart, in registration order, those that path following cannot treat.

    Treated are layers that own a weight, with or without a bias and with nothing else, which exactly one call of
    `linear` or a convolution takes as it is. The network runs once, in the mode it is in.
    """
    calls: list[LayerCall] = []
    with torch.no_grad(), _Listener(calls.append):
        network(images)
    positions: dict[FixableLayer, int] = {}
    for layer in layers:
        own = layer.parameters(network)
        uses = [position for position, call in enumerate(calls) if call.weight is own[0]]
        if len(uses) == 1 and _is_plain(layer, own, calls[uses[0]]):
            positions[layer] = uses[0]
    return sorted(positions, key=positions.__getitem__), [layer for layer in layers if layer not in positions]


def _is_plain(layer: FixableLayer, own: Sequence[Tensor], call: LayerCall) -> bool:
    return layer.own == ("weight",) or (layer.own == ("weight", "bias") and call.bias is own[1])


def call_of(network: nn.Module, layer: FixableLayer, images: Tensor) -> LayerCall | None:
    """Run a network up to a layer and return the layer's call; None if it is not reached."""
    weight = layer.module(network).weight
    found: list[LayerCall] = []

    def stop(call: LayerCall) -> None:
        if call.weight is weight:
            found.append(call)
            raise _Reached

    with torch.no_grad(), suppress(_Reached), _Listener(stop):
        network(images)
    return found[0] if found else None
