"""Which parameters of a network share the codebook, and flat buffers behind them.

The fixed set is every weight and bias of the layers that sum products of weights and activations, first and last layer
included (PWFN, section 3): convolutions, transposed ones too, linear layers, recurrent cells, attention with its
biases. Everything else (norm layers, scales of a channel, tokens, embeddings) still trains but is never fixed.
docs/networks.md has the whole list, and what it means for layers that compute their weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwfn.errors import UserError

PRODUCT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers of one weight whose first dimension counts outputs: what most of the methods' papers speak of."""
TRANSPOSED_LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FIXABLE_LAYERS = (
    *PRODUCT_LAYERS,
    *TRANSPOSED_LAYERS,
    nn.Bilinear,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
"""All of whose own parameters are in the fixed set; see also `is_mixture`."""
ATTENTION_BIASES = frozenset(
    {"attention_biases", "relative_position_bias_table", "q_bias", "k_bias", "v_bias", "mlp_bias",
     "duplicate_pooling_bias"}
)  # fmt: skip
"""Parameters of any other module that are added to sums of products, by their last name (timm's)."""
RAW_WEIGHTS = frozenset(
    {"rel_pos_h", "rel_pos_w", "height_rel", "width_rel", "pos_emb", "w_g", "query_proj", "key_proj", "value_proj",
     "out_proj", "duplicate_pooling"}
)  # fmt: skip
"""Likewise those that activations are multiplied by: relative positions that queries meet, projections of attention."""
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
MIN_SIGMA = 2.0**-30
"""Smallest sigma of weight noise, of a posterior and of the sigmas in an exported file: it keeps the gradient of sigma
alive without moving any weight in float32."""


@dataclass(frozen=True)
class LeftOut:
    """Parameters of one kind that do not share the codebook."""

    kind: str
    """Class of the module and name of the parameter (`VisionTransformer.pos_embed`); norm layers are one kind."""
    names: tuple[str, ...]
    num_parameters: int


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
    def num_parameters(self) -> int:
        """Number of all parameters."""
        return self.num_fixable + sum(parameter.numel() for parameter in self.rest.values())

    @property
    def coverage(self) -> float:
        """Share of all parameters that is in the fixed set."""
        return self.num_fixable / self.num_parameters


def split_parameters(network: nn.Module, *, include_norm: bool = False) -> ParameterSets:
    """Split a network's parameters into the fixed set and the rest.

    Args:
        network: any module with float32 parameters, or float64 ones to check gradients.
        include_norm: also put the scale and shift of norm layers into the fixed set (WFN's ImageNet runs).

    Raises:
        UserError: no layer that could be fixed, or a parameter of another type.
    """
    layers = (*FIXABLE_LAYERS, *NORM_LAYERS) if include_norm else FIXABLE_LAYERS
    chosen = {
        id(parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, layers) or is_mixture(module) or name in ATTENTION_BIASES or name in RAW_WEIGHTS
    }
    named = dict(network.named_parameters())  # a shared parameter appears once
    for name, parameter in named.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise UserError(f"parameter {name} is {parameter.dtype}; only float32 networks can be compressed")
    fixable = {name: parameter for name, parameter in named.items() if id(parameter) in chosen}
    if not fixable:
        raise UserError(f"{type(network).__name__} has no convolution or linear layer: nothing to fix")
    return ParameterSets(fixable, {name: p for name, p in named.items() if name not in fixable})


def is_fixable(module: nn.Module) -> bool:
    """Whether all of a module's own parameters are in the fixed set."""
    return isinstance(module, FIXABLE_LAYERS) or is_mixture(module)


def is_mixture(module: nn.Module) -> bool:
    """Whether this is timm's mixture of convolutions, known by its name: what only counts weights needs no timm."""
    return type(module).__name__ == "CondConv2d" and hasattr(module, "weight_shape")


def is_bias(name: str) -> bool:
    """Whether a parameter of the fixed set, by its name, is added to a sum of products rather than a factor in it."""
    last = name.rpartition(".")[2]
    return last in ATTENTION_BIASES or "bias" in last


def left_out(network: nn.Module, sets: ParameterSets) -> list[LeftOut]:
    """List what does not share the codebook, kind by kind, the kind with most parameters first."""
    kinds: dict[str, list[str]] = {}
    for name in sets.rest:
        owner, _, last = name.rpartition(".")
        module = network.get_submodule(owner)
        is_norm = isinstance(module, NORM_LAYERS) or "norm" in type(module).__name__.lower()
        kinds.setdefault("norm layers" if is_norm else f"{type(module).__name__}.{last}", []).append(name)
    found = [LeftOut(kind, tuple(names), sum(sets.rest[n].numel() for n in names)) for kind, names in kinds.items()]
    return sorted(found, key=lambda kind: -kind.num_parameters)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, as a checkpoint keeps them."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state whose names begin so, without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def buffers_of(network: nn.Module) -> dict[str, Tensor]:
    """A network's buffers (BatchNorm's statistics) under the names that a checkpoint gives them."""
    return {f"buffer.{name}": buffer for name, buffer in network.named_buffers()}


def restore_buffers_(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network the buffers that a checkpoint holds."""
    for name, buffer in buffers_of(network).items():
        buffer.copy_(state[name])


def shares_left_out(network: nn.Module, sets: ParameterSets) -> tuple[str, ...]:
    """Name the kinds of parameters that do not share the codebook, each with its share of all parameters."""
    return tuple(f"{kind.kind} {kind.num_parameters / sets.num_parameters:.2%}" for kind in left_out(network, sets))


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
