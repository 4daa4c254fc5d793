"""Equalisation: rescales the weights in front of each BatchNorm to one size, without a change of the network's outputs.

BatchNorm divides each channel by its standard deviation, so that the size of a filter in front of it does not matter to
the network. It matters to a codebook that all layers share: its values must reach the largest weights of one layer and
still tell the smallest weights of another apart. When all layers have one size, they use the same few values. The
parameters of BatchNorm compensate the factors. (Nagel et al. 2019, arXiv 1906.04721, section 4.1, rescale pairs of
layers in the same way.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pwfn.errors import UserError
from pwfn.parameters import PRODUCT_LAYERS, is_bias, split_parameters

UNUSED_SHARE = 0.1
"""A filter below this share of its layer's size is nearly unused. It gets the factor of its layer, because a factor of
its own would make it as large as the others."""
TOLERANCE = 1e-3
"""Largest change of the outputs, as a share of the largest output, that rounding can explain."""


@torch.no_grad()
def equalize_(network: nn.Module, images: Tensor, per: str) -> None:
    """Rescale the layers whose output goes to a BatchNorm to the size of all other layers, in place.

    The size of some weights is their root mean square. If there are no other layers, all get the size of all weights
    together. A layer or filter with only zeros is not changed.

    Args:
        network: it is put into evaluation mode.
        images: `(batch, channels, height, width)`; the outputs for these images must not change.
        per: `layer` for one factor per layer, `filter` for one per output channel.

    Raises:
        UserError: the outputs changed, because something other than BatchNorm uses the output of a layer.
    """
    network.eval()
    before = network(images)
    layers = dict(_normalised_layers(network, images))
    target = _target(network, [layer.weight for layer in layers])
    for layer, norm in layers.items():
        size = sizes(layer.weight, per)
        _rescale_(layer, norm, torch.where(size > 0, target / size, 1))
    change = (network(images) - before).abs().max() / before.abs().max()
    if not change <= TOLERANCE:
        raise UserError(
            f"model.equalize={per}: this network's outputs change by {change:.1%}, as something other than BatchNorm "
            "sees what its layers put out; use model.equalize=none"
        )


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


def _normalised_layers(network: nn.Module, images: Tensor) -> Iterator[tuple[Any, Any]]:
    """Find the pairs of a layer and a BatchNorm whose input is the layer's output.

    Only pairs in which each runs exactly once for `images` are returned.
    """
    runs: Counter[nn.Module] = Counter()
    outputs: list[tuple[nn.Module, Tensor]] = []
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def after_layer(layer: nn.Module, _: Any, output: Tensor) -> None:
        runs[layer] += 1
        outputs.append((layer, output))

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[norm] += 1
        pairs.extend((layer, norm) for layer, output in outputs if output is inputs[0])

    hooks = [m.register_forward_hook(after_layer) for m in network.modules() if isinstance(m, PRODUCT_LAYERS)]
    hooks += [m.register_forward_pre_hook(before_norm) for m in network.modules() if _can_undo(m)]
    network(images)
    for hook in hooks:
        hook.remove()
    return ((layer, norm) for layer, norm in pairs if runs[layer] == runs[norm] == 1)


def _can_undo(module: nn.Module) -> bool:
    """Whether this is a BatchNorm with a scale and running statistics, which can undo the rescaling."""
    return isinstance(module, _BatchNorm) and module.affine and module.track_running_stats
