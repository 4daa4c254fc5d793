"""Which parameters of a network share the codebook, and flat buffers behind them.

The fixed set is every weight and bias of Conv1d/2d/3d and Linear layers, first and last layer included (PWFN,
section 3). Everything else (norm layers, tokens, embeddings, raw parameters) still trains but is never fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwfn.errors import UserError

FIXABLE_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
MIN_SIGMA = 2.0**-30
"""Smallest sigma of weight noise, of a posterior and of the sigmas in an exported file: it keeps the gradient of sigma
alive without moving any weight in float32."""


@dataclass(frozen=True)
class ParameterSets:
    """The parameters of a network by name, in registration order; shared ones once, under their first name."""

    fixable: dict[str, nn.Parameter]
    rest: dict[str, nn.Parameter]

    @property
    def num_fixable(self) -> int:
        """Number of weights in the fixed set."""
        return sum(parameter.numel() for parameter in self.fixable.values())

    @property
    def coverage(self) -> float:
        """Share of all parameters that is in the fixed set."""
        num_rest = sum(parameter.numel() for parameter in self.rest.values())
        return self.num_fixable / (self.num_fixable + num_rest)


def split_parameters(network: nn.Module, *, include_norm: bool = False) -> ParameterSets:
    """Split a network's parameters into the fixed set and the rest.

    Args:
        network: any module with float32 parameters, or float64 ones to check gradients.
        include_norm: also put the scale and shift of norm layers into the fixed set (WFN's ImageNet runs).

    Raises:
        UserError: no convolution or linear layer, or a parameter of another type.
    """
    layers = (*FIXABLE_LAYERS, *NORM_LAYERS) if include_norm else FIXABLE_LAYERS
    in_fixable_layer = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, layers)
        for parameter in module.parameters(recurse=False)
    }
    named = dict(network.named_parameters())  # a shared parameter appears once
    for name, parameter in named.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise UserError(f"parameter {name} is {parameter.dtype}; only float32 networks can be compressed")
    fixable = {name: parameter for name, parameter in named.items() if id(parameter) in in_fixable_layer}
    if not fixable:
        raise UserError(f"{type(network).__name__} has no convolution or linear layer: nothing to fix")
    return ParameterSets(fixable, {name: p for name, p in named.items() if name not in fixable})


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, as a checkpoint keeps them."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def buffers_of(network: nn.Module) -> dict[str, Tensor]:
    """A network's buffers (BatchNorm's statistics) under the names that a checkpoint gives them."""
    return {f"buffer.{name}": buffer for name, buffer in network.named_buffers()}


def restore_buffers_(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network the buffers that a checkpoint holds."""
    for name, buffer in buffers_of(network).items():
        buffer.copy_(state[name])


def in_pieces(*flats: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut flat tensors of one length alike, so that several operations on a piece cost a CPU one trip to memory.

    What they take for themselves is freed piece by piece. A GPU gets pieces that keep it busy.
    """
    size = 2**20 if flats[0].device.type == "cpu" else 2**24
    return zip(*(torch.split(flat, size) for flat in flats), strict=True)


def as_factor(mask: Tensor, like: Tensor) -> Tensor:
    """Return 1 where a bool mask is true and 0 elsewhere, in the type of `like`.

    To multiply by it takes a CPU a fifth of the time of `masked_fill_`, which branches at every value; and torch makes
    numbers from bytes faster than from bools.
    """
    return mask.view(torch.uint8).to(like.dtype)


def quantile(values: Tensor, q: float) -> Tensor:
    """Linearly interpolated quantile over the last dimension, of any size; torch.quantile refuses more than 2^24."""
    size = values.shape[-1]
    position = q * (size - 1)
    below = math.floor(position)
    low = values.kthvalue(below + 1).values
    high = values.kthvalue(min(below + 2, size)).values
    return low + (high - low) * (position - below)


class FlatParameters:
    """One buffer, and one for its gradient, behind many parameters of one type.

    After construction each parameter is a view of `values` and its `.grad` a view of `gradient`, so that drawing
    noise, clipping, reducing and updating are single operations on `(num_weights,)` whatever the number of layers.
    Autograd adds into an existing `.grad` in place, which keeps the views; call `gradient.zero_()` before a backward
    pass and never `zero_grad(set_to_none=True)`.

    Args:
        parameters: of one network, on one device; their values are kept.
        values: where to put them, `(num_weights,)`; None allocates.
        gradient: likewise for their gradient.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], values: Tensor | None = None, gradient: Tensor | None = None
    ) -> None:
        parameters = list(parameters)
        self.sizes = [parameter.numel() for parameter in parameters]
        like = parameters[0].detach() if parameters else torch.empty(0)
        self.values = like.new_empty(sum(self.sizes)) if values is None else values
        self.gradient = torch.zeros_like(self.values) if gradient is None else gradient
        pieces = zip(parameters, self.pieces(self.values), self.pieces(self.gradient), strict=True)
        for parameter, piece, gradient_piece in pieces:
            piece.copy_(parameter.detach().reshape(-1))
            parameter.data = piece.view(parameter.shape)
            parameter.grad = gradient_piece.view(parameter.shape)

    def pieces(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Cut a flat `(num_weights,)` tensor into one 1-D view per parameter."""
        return torch.split(flat, self.sizes)
