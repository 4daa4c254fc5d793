"""The layers of a network as linear maps of samples: the order in which they run, and their inputs.

A layer's inputs are read from the call of torch's `linear` or `conv1d/2d/3d` that takes its weight, not from the call
of its module. So they are the inputs after a module's own padding, and stride, padding, dilation and groups are those
that were used. A module that computes with something other than its weight (a standardised weight) makes no such call.
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
"""Torch's convolutions, each with the number of dimensions of its images."""
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")

CHUNK_ELEMENTS = 2**23
"""Most numbers in one unrolled piece of a layer's inputs (32 MB), so that memory does not grow with the batch."""


@dataclass(frozen=True)
class FixableLayer:
    """A module that has parameters of the fixed set as its own."""

    name: str
    """Name of the module in the network."""
    own: tuple[str, ...]
    """Names of its parameters in the fixed set, `weight` and `bias` first; those of an earlier layer are left out."""

    def module(self, network: nn.Module) -> nn.Module:
        """Return its module in a network of this architecture."""
        return network.get_submodule(self.name)

    def parameters(self, network: nn.Module) -> list[nn.Parameter]:
        """Return the parameters that `own` names, in a network of this architecture."""
        return [self.module(network).get_parameter(name) for name in self.own]

    def rows(self, network: nn.Module) -> list[Tensor]:
        """View each of its weights as `(neurons, features)`, also weights that it shares with other layers.

        Biases and tables of attention biases are left out. A mixture of experts has a row for each neuron of each
        expert, a transposed convolution one for each of its output channels.
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
        """Join all of its parameters that `rows` leaves out, `(num_biases,)`."""
        own = dict(self.module(network).named_parameters(recurse=False))
        beside = [p.detach().flatten() for name, p in own.items() if self.is_beside_rows(network, name)]
        return torch.cat(beside) if beside else next(iter(own.values())).new_empty(0)

    def is_beside_rows(self, network: nn.Module, name: str) -> bool:
        """Whether `rows` leaves a parameter of its module out: a bias, or anything else that is not a weight matrix."""
        module = self.module(network)
        return is_bias(name) or not is_fixable(module) or module.get_parameter(name).ndim < 2


def fixable_layers(network: nn.Module) -> list[FixableLayer]:
    """List the layers in registration order; each parameter of the fixed set belongs to exactly one of them."""
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
    """The arguments of one call of `linear` or of a convolution."""

    weight: Tensor
    bias: Tensor | None
    inputs: Tensor
    num_dimensions: int
    """Number of dimensions of a convolution's images; 0 for a linear layer."""
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, function: Callable[..., Tensor], args: Sequence[Any], kwargs: dict[str, Any]) -> LayerCall:
        """Read the arguments of a call of `function`, which is `linear` or one of CONVOLUTIONS."""
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
        """Number of inputs of one neuron."""
        return self.weight[0].numel()

    def matrices(self, weight: Tensor) -> Tensor:
        """View a weight of this layer as `(groups, neurons, features)`."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def samples(self) -> Iterator[Tensor]:
        """Yield the samples in pieces `(groups, features, samples)`. A column is an image patch, a token or an image.

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
        """Numbers of zeros before and after each dimension, the last dimension first, as torch's `pad` takes them."""
        if self.padding == "same":  # an odd number has one zero more at the end
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
    """Calls `listen` with the arguments of every call of `linear` or of a convolution, before it runs."""

    def __init__(self, listen: Callable[[LayerCall], None]) -> None:
        super().__init__()
        self.listen = listen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is linear or func in CONVOLUTIONS:
            self.listen(LayerCall.of(func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Reached(Exception):  # noqa: N818  (it is not an error)
    """Ends a forward pass when the wanted call is reached."""


def execution_order(
    network: nn.Module, layers: Sequence[FixableLayer], images: Tensor
) -> tuple[list[FixableLayer], list[FixableLayer]]:
    """Part layers into those that path following can treat and those that it cannot.

    It can treat a layer whose own parameters are a weight, or a weight and a bias, if exactly one call of `linear` or
    of a convolution takes the weight itself. The network runs once on `images`, in its present mode.

    Returns:
        The layers that can be treated, in the order in which they run, and the others, in registration order.
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
    """Run a network on `images` up to a layer and return the layer's call; None if the layer does not run."""
    weight = layer.module(network).weight
    found: list[LayerCall] = []

    def stop(call: LayerCall) -> None:
        if call.weight is weight:
            found.append(call)
            raise _Reached

    with torch.no_grad(), suppress(_Reached), _Listener(stop):
        network(images)
    return found[0] if found else None
