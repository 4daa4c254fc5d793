"""Equalisation: rescales the weights beside norm layers to one size, without a change of the network's outputs.

BatchNorm divides each channel by its standard deviation, so that the size of a filter in front of it does not matter to
the network. It matters to a codebook that all layers share: its values must reach the largest weights of one layer and
still tell the smallest weights of another apart. When all layers have one size, they use the same few values. The
parameters of BatchNorm compensate the factors. (Nagel et al. 2019, arXiv 1906.04721, section 4.1, rescale pairs of
layers in the same way.)

Transformers have no BatchNorm. Three other places compensate factors there, each exactly:
- LayerNorm, whose scale and shift belong to the same channels as the columns of the linear layers after it;
- the values of an attention, whose rows belong to the same channels as the columns of the projection after it: the
  output of an attention is linear in its values;
- the first layer of an MLP, likewise, where the activation between the two layers is positively homogeneous
  (max(0, x) is; GELU is not).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pwfn.errors import UserError
from pwfn.exact import exact_float32
from pwfn.parameters import PRODUCT_LAYERS, is_bias, split_parameters

UNUSED_SHARE = 0.1
"""A filter below this share of its layer's size is nearly unused. It gets the factor of its layer, because a factor of
its own would make it as large as the others."""
TOLERANCE = 1e-3
"""Largest change of the outputs, as a share of the largest output, that rounding in float32 can explain."""
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity)
"""Activations with f(a x) = a f(x) for every a > 0."""


@dataclass(frozen=True)
class Place:
    """Weights that can be rescaled, since something before them takes up the factors."""

    name: str
    """For messages."""
    rescaled: tuple[Tensor, ...]
    """Weights that share one factor for each channel of their inputs, dimension 1."""
    compensate_: Callable[[Tensor], None]
    """Takes the factors, `(channels,)`, and divides what comes before by them."""
    compensating: tuple[Tensor, ...]
    """What `compensate_` changes."""


@torch.no_grad()
def equalize_(network: nn.Module, images: Tensor, per: str) -> list[str]:
    """Rescale the layers beside BatchNorms, LayerNorms, attentions and MLPs to the size of all others, in place.

    The size of some weights is their root mean square. If there are no other layers, all get the size of all weights
    together. A layer or filter with only zeros is not changed.

    Args:
        network: it is put into evaluation mode.
        images: `(batch, channels, height, width)`; the outputs for these images must not change.
        per: `layer` for one factor per layer, `filter` for one per output channel of a layer in front of a BatchNorm,
            and elsewhere per input channel.

    Returns:
        What is left as it was, with the reason, one sentence each.

    Raises:
        UserError: the outputs changed, because something other than BatchNorm uses the output of a layer.
    """
    network.eval()
    with exact_float32():
        before = network(images)
    layers = dict(_normalised_layers(network, images))
    places, left = _places(network, images)
    beside = [weight for place in places for weight in place.rescaled]
    target = _target(network, [*(layer.weight for layer in layers), *beside])
    for layer, norm in layers.items():
        size = sizes(layer.weight, per)
        _rescale_(layer, norm, torch.where(size > 0, target / size, 1))
    change = _change(network, images, before)
    if not change <= TOLERANCE:
        raise UserError(
            f"model.equalize={per}: this network's outputs change by {change:.1%}, as something other than BatchNorm "
            "sees what its layers put out; use model.equalize=none"
        )
    for place in places:
        change = _rescale_place_(place, target, per, lambda: _change(network, images, before))
        if not change <= TOLERANCE:
            left.append(f"{place.name}: the outputs would change by {change:.1%}")
    return left


def sizes(weight: Tensor, per: str) -> Tensor:
    """Return the size by which the factor of each filter is computed, `(filters,)`.

    With `per="layer"`, and for filters that are nearly unused, it is the size of the whole layer.
    """
    of_layer = _size(weight)
    if per == "layer":
        return of_layer.expand(len(weight))
    of_filter = weight.flatten(1).square().mean(dim=1).sqrt()
    return torch.where(of_filter > UNUSED_SHARE * of_layer, of_filter, of_layer)


def _size(weights: Tensor) -> Tensor:
    return weights.square().mean().sqrt()


def _change(network: nn.Module, images: Tensor, before: Tensor) -> float:
    """By how much the outputs differ from those before, as a share of the largest."""
    with exact_float32():
        return float((network(images) - before).abs().max() / before.abs().max())


def _target(network: nn.Module, rescaled: list[Any]) -> Tensor:
    """Size of all weights, without biases, that are not among `rescaled`; if these are none or zero, of all weights."""
    fixable = split_parameters(network).fixable
    weights = [parameter for name, parameter in fixable.items() if parameter.ndim > 1 and not is_bias(name)]
    chosen = {id(weight) for weight in rescaled}
    others = torch.cat([weights[0].new_empty(0), *(w.flatten() for w in weights if id(w) not in chosen)])
    return _size(others) if others.any() else _size(torch.cat([weight.flatten() for weight in weights]))


def _rescale_(layer: Any, norm: Any, factor: Tensor) -> None:
    """Multiply each filter by its factor, `(filters,)`, and change the BatchNorm after it so that it undoes that."""
    spread = (norm.running_var + norm.eps).sqrt()
    layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(factor)
    norm.running_mean.mul_(factor)
    norm.running_var.mul_(factor.square())
    norm.weight.mul_((norm.running_var + norm.eps).sqrt() / (factor * spread))


def _rescale_place_(place: Place, target: Tensor, per: str, measure: Callable[[], float]) -> float:
    """Rescale a place to the target; where the outputs change, put it back. Return by how much they change."""
    touched = (*place.rescaled, *place.compensating)
    kept = [parameter.clone() for parameter in touched]
    columns = torch.cat([weight.transpose(0, 1).flatten(1) for weight in place.rescaled], dim=1)
    size = sizes(columns, per)
    factor = torch.where(size > 0, target / size, 1)
    for weight in place.rescaled:
        weight.mul_(factor.view(1, -1, *[1] * (weight.ndim - 2)))
    place.compensate_(factor)
    change = measure()
    if not change <= TOLERANCE:
        for parameter, value in zip(touched, kept, strict=True):
            parameter.copy_(value)
    return change


def _normalised_layers(network: nn.Module, images: Tensor) -> Iterator[tuple[Any, Any]]:
    """Find the pairs of a layer and a BatchNorm whose input is the layer's output.

    Only pairs in which each runs exactly once for `images` are returned.
    """
    runs, pairs = _neighbours(network, images, PRODUCT_LAYERS, _can_undo)
    return ((layer, norm) for layer, norm in pairs if runs[layer] == runs[norm] == 1)


def _neighbours(
    network: nn.Module, images: Tensor, first: tuple[type[nn.Module], ...], is_second: Callable[[nn.Module], bool]
) -> tuple[Counter[nn.Module], list[tuple[Any, Any]]]:
    """Run the network; return how often each module ran, and the pairs whose second takes what the first puts out."""
    runs: Counter[nn.Module] = Counter()
    outputs: list[tuple[nn.Module, Tensor]] = []
    pairs: list[tuple[Any, Any]] = []

    def after_first(module: nn.Module, _: Any, output: Tensor) -> None:
        runs[module] += 1
        outputs.append((module, output))

    def before_second(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[module] += 1
        pairs.extend((each, module) for each, output in outputs if output is inputs[0])

    hooks = [m.register_forward_hook(after_first) for m in network.modules() if isinstance(m, first)]
    hooks += [m.register_forward_pre_hook(before_second) for m in network.modules() if is_second(m)]
    network(images)
    for hook in hooks:
        hook.remove()
    return runs, pairs


def _can_undo(module: nn.Module) -> bool:
    """Whether this is a BatchNorm with a scale and running statistics, which can undo the rescaling."""
    return isinstance(module, _BatchNorm) and module.affine and module.track_running_stats


def _places(network: nn.Module, images: Tensor) -> tuple[list[Place], list[str]]:
    """Find what can be rescaled without BatchNorm, and what cannot, with the reason.

    What stands behind a LayerNorm comes last, since it takes up the factors of the layers after it.
    """
    places: list[Place] = []
    left: list[str] = []
    for name, module in network.named_modules():
        places += _attention(name, module)
        first, second = getattr(module, "fc1", None), getattr(module, "fc2", None)
        if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
            activation = getattr(module, "act", None)
            if isinstance(activation, HOMOGENEOUS):
                places.append(_pair(f"{name}.fc2", first, second, range(first.out_features)))
            else:
                left.append(f"{name}.fc2: {type(activation).__name__} in front of it is not positively homogeneous")
    return [*places, *_after_layer_norms(network, images)], left


def _attention(name: str, module: nn.Module) -> Iterator[Place]:
    """Find the projection of an attention as timm writes it: `qkv` puts out queries, keys and values one after another.

    The channels of the values are those of the projection's inputs, head by head.
    """
    qkv, proj = getattr(module, "qkv", None), getattr(module, "proj", None)
    if isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear) and qkv.out_features == 3 * proj.in_features:
        yield _pair(f"the values of {name}", qkv, proj, range(2 * proj.in_features, 3 * proj.in_features))


def _pair(name: str, first: nn.Linear, second: nn.Linear, rows: range) -> Place:
    """Two layers: what `rows` of the first put out are the input channels of the second, which is rescaled."""
    own = slice(rows.start, rows.stop)
    compensating = (first.weight,) if first.bias is None else (first.weight, first.bias)

    def compensate_(factor: Tensor) -> None:
        first.weight[own].div_(factor[:, None])
        if first.bias is not None:
            first.bias[own].div_(factor)

    return Place(name, (second.weight,), compensate_, compensating)


def _after_layer_norms(network: nn.Module, images: Tensor) -> Iterator[Place]:
    """Find the layers that take what a LayerNorm puts out; all layers after one LayerNorm are one place."""
    names = {module: name for name, module in network.named_modules()}
    runs, pairs = _neighbours(network, images, (nn.LayerNorm,), _takes_channels)
    after: dict[Any, list[Any]] = {}
    for norm, layer in pairs:
        if norm.weight is not None and runs[norm] == runs[layer] == 1:
            after.setdefault(norm, []).append(layer)
    for norm, layers in after.items():
        name = ", ".join(names[layer] for layer in layers)
        compensating = (norm.weight,) if norm.bias is None else (norm.weight, norm.bias)
        yield Place(name, tuple(layer.weight for layer in layers), _divide_(compensating), compensating)


def _divide_(parameters: Sequence[Tensor]) -> Callable[[Tensor], None]:
    def divide_(factor: Tensor) -> None:
        for parameter in parameters:
            parameter.div_(factor)

    return divide_


def _takes_channels(module: nn.Module) -> bool:
    """Whether this layer's inputs are the channels of a norm, each of which has a column of weights."""
    return isinstance(module, PRODUCT_LAYERS) and getattr(module, "groups", 1) == 1
