"""The parameters of a network that share the codebook (the fixed set), and flat buffers that hold parameters.

The fixed set is every weight and bias of the layers that sum products of weights and activations, first and last layer
included (PWFN, section 3): convolutions and transposed convolutions, linear layers, recurrent cells, and attention with
its biases. All other parameters (norm layers, channel scales, tokens, embeddings) are trained but never fixed.
docs/networks.md has the whole list, and says what it means for layers that compute their weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwfn.errors import UserError

PRODUCT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers with one weight whose first dimension counts outputs; most of the methods' papers treat only these."""
TRANSPOSED_LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FIXABLE_LAYERS = (
    *PRODUCT_LAYERS,
    *TRANSPOSED_LAYERS,
    nn.Bilinear,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
"""Layers whose own parameters are all in the fixed set; see also `is_mixture`."""
ATTENTION_BIASES = frozenset(
    {"attention_biases", "relative_position_bias_table", "q_bias", "k_bias", "v_bias", "mlp_bias",
     "duplicate_pooling_bias"}
)  # fmt: skip
"""Parameters of other modules that are added to sums of products: the last part of their names, as in timm."""
RAW_WEIGHTS = frozenset(
    {"rel_pos_h", "rel_pos_w", "height_rel", "width_rel", "pos_emb", "w_g", "query_proj", "key_proj", "value_proj",
     "out_proj", "duplicate_pooling"}
)  # fmt: skip
"""Parameters of other modules that activations are multiplied by (relative positions, projections of attention): the
last part of their names, as in timm."""
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
MIN_SIGMA = 2.0**-30
"""Smallest sigma of a posterior, also in exported files. With it, sigma still has a gradient, and the noise is too
small to change any weight in float32."""


@dataclass(frozen=True)
class LeftOut:
    """Parameters of one kind that do not share the codebook."""

    kind: str
    """Class of the module and name of the parameter (`VisionTransformer.pos_embed`); norm layers are one kind."""
    names: tuple[str, ...]
    """Names of these parameters in the network."""
    num_parameters: int
    """Number of weights in them, all together."""


@dataclass(frozen=True)
class ParameterSets:
    """The parameters of a network by name, in registration order.

    A parameter that several modules share is listed once, under its first name.
    """

    fixable: dict[str, nn.Parameter]
    """The fixed set."""
    rest: dict[str, nn.Parameter]
    """All others."""

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
        network: any module with float32 parameters, or with float64 ones to check gradients.
        include_norm: also put the scale and shift of norm layers into the fixed set (WFN's ImageNet runs).

    Raises:
        UserError: the fixed set is empty, or a parameter has another data type.
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
    """Whether this is timm's mixture of convolutions (CondConv2d), recognised by its name: timm is not imported."""
    return type(module).__name__ == "CondConv2d" and hasattr(module, "weight_shape")


def is_bias(name: str) -> bool:
    """Whether a parameter of the fixed set with this name is added to sums of products and not a factor in them."""
    last = name.rpartition(".")[2]
    return last in ATTENTION_BIASES or "bias" in last


def left_out(network: nn.Module, sets: ParameterSets) -> list[LeftOut]:
    """List the parameters that do not share the codebook, grouped by kind, the kind with the most parameters first."""
    kinds: dict[str, list[str]] = {}
    for name in sets.rest:
        owner, _, last = name.rpartition(".")
        module = network.get_submodule(owner)
        is_norm = isinstance(module, NORM_LAYERS) or "norm" in type(module).__name__.lower()
        kinds.setdefault("norm layers" if is_norm else f"{type(module).__name__}.{last}", []).append(name)
    found = [LeftOut(kind, tuple(names), sum(sets.rest[n].numel() for n in names)) for kind, names in kinds.items()]
    return sorted(found, key=lambda kind: -kind.num_parameters)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies of tensors on the CPU, under the same names."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state whose names begin so, without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def buffers_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's buffers (BatchNorm's statistics) under the names that they have in a saved state."""
    return {f"buffer.{name}": buffer for name, buffer in network.named_buffers()}


def restore_buffers_(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the buffers of a saved state into a network."""
    for name, buffer in buffers_of(network).items():
        buffer.copy_(state[name])


def shares_left_out(network: nn.Module, sets: ParameterSets) -> tuple[str, ...]:
    """Name the kinds of parameters that do not share the codebook, each with its share of all parameters."""
    return tuple(f"{kind.kind} {kind.num_parameters / sets.num_parameters:.2%}" for kind in left_out(network, sets))


def in_pieces(*flats: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut flat tensors of one length into pieces at the same places.

    On a CPU a piece stays in the cache while several operations work on it; on a GPU pieces are large enough to keep it
    busy. Temporary tensors are only as large as a piece.
    """
    size = 2**20 if flats[0].device.type == "cpu" else 2**24
    if len(flats[0]) <= size:
        return iter([flats])
    return zip(*(torch.split(flat, size) for flat in flats), strict=True)


def as_factor(mask: Tensor, like: Tensor) -> Tensor:
    """Return 1 where a bool mask is true and 0 elsewhere, in the type of `like`.

    On a CPU a multiplication by it takes a fifth of the time of `masked_fill_`, which has a branch for every value.
    Torch converts bytes faster than bools, hence the view.
    """
    return mask.view(torch.uint8).to(like.dtype)


def quantile(values: Tensor, q: float) -> Tensor:
    """Linearly interpolated quantile q in [0, 1] over the last dimension; see `quantiles`."""
    return quantiles(values, (q,))[0]


def quantiles(values: Tensor, qs: Sequence[float]) -> Tensor:
    """Linearly interpolated quantiles over the last dimension, stacked along a new first one.

    The last dimension may have any size; torch.quantile refuses more than 2^24 numbers.
    """
    size = values.shape[-1]
    at = ranked(values)
    found = []
    for position in (q * (size - 1) for q in qs):
        below = math.floor(position)
        low, high = at(below), at(min(below + 1, size - 1))
        found.append(low + (high - low) * (position - below))
    return torch.stack(found)


def ranked(values: Tensor) -> Callable[[int], Tensor]:
    """Return what gives the number of any rank over the last dimension; rank 0 is the smallest.

    A GPU sorts once for all ranks: its kthvalue is a single thread block, and takes 20 times as long as a sort for 10^8
    numbers (pytorch issue 75599).
    """
    if values.device.type == "cpu":
        return lambda rank: values.kthvalue(rank + 1).values
    ascending = values.sort().values
    return lambda rank: ascending[..., rank]


class FlatParameters:
    """One buffer that holds many parameters of one data type, and one that holds their gradients.

    After construction each parameter is a view of `values`. Drawing noise, clipping, reducing and updating are then
    single operations on `(num_weights,)`, whatever the number of layers. Call `forget_` before the backward passes of a
    step, and `collect_` after them: autograd then keeps the gradients as it computed them, and one operation copies
    them into `gradient`. (Adding each to a view of `gradient` reads and writes more, in an operation for every one.)

    A parameter that lies channels last keeps this layout: the buffer has its numbers in the order in which they lie,
    which is not that of `flatten`. `views` and `arranged` know the difference.

    Args:
        parameters: of one network, on one device; they keep their values.
        values: the buffer to use, `(num_weights,)`; None makes one.
        gradient: the buffer to use for their gradients, `(num_weights,)`; None makes one.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], values: Tensor | None = None, gradient: Tensor | None = None
    ) -> None:
        self.parameters = parameters = list(parameters)
        self.sizes = [parameter.numel() for parameter in parameters]
        self._layouts = [(parameter.shape, _strides(parameter)) for parameter in parameters]
        like = parameters[0].detach() if parameters else torch.empty(0)
        self.values = like.new_empty(sum(self.sizes)) if values is None else values
        self.gradient = torch.zeros_like(self.values) if gradient is None else gradient
        for parameter, view in zip(parameters, self.views(self.values), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view

    def forget_(self) -> None:
        """Drop the gradients of the parameters; `gradient` stays as it is until `collect_`."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def collect_(self) -> None:
        """Copy the gradients of the parameters into `gradient`, zeros for those that have none.

        Each `.grad` is then a view of `gradient`.
        """
        into, found = [], []
        for parameter, view in zip(self.parameters, self.views(self.gradient), strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                into.append(view)
                found.append(parameter.grad)
            parameter.grad = view
        if into:
            torch._foreach_copy_(into, found)

    def pieces(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Cut a flat `(num_weights,)` tensor into one 1-D view per parameter."""
        return torch.split(flat, self.sizes)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Cut a flat `(num_weights,)` tensor into one view per parameter, with its shape and layout."""
        return [piece.as_strided(*layout) for piece, layout in zip(self.pieces(flat), self._layouts, strict=True)]

    def arranged(self, flat: Tensor) -> Tensor:
        """Bring numbers `(num_weights,)`, flattened parameter by parameter, into the order of the buffers."""
        found = torch.empty_like(flat)
        for view, piece in zip(self.views(found), self.pieces(flat), strict=True):
            view.copy_(piece.view(view.shape))
        return found


def _strides(parameter: Tensor) -> tuple[int, ...]:
    """The strides of a parameter that lies channels last, or those of a contiguous one."""
    if parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        return parameter.stride()
    return torch.empty(parameter.shape, device="meta").stride()
