"""Makes layers equally large: rescales each layer before a BatchNorm in such a way that the network's outputs stay.

BatchNorm divides each channel by its standard deviation, so the size of a filter before it does not matter to the
network. It matters to a codebook that all layers share, which must reach the largest weights of one layer and still
resolve the smallest of another. When all layers are equally large, they use the same few values, and BatchNorm's own
parameters take up the factors (as between the layers of Nagel et al. 2019, arXiv 1906.04721, section 4.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pwfn.errors import UserError
from pwfn.exact import exact_float32
from pwfn.parameters import PRODUCT_LAYERS, is_bias, split_parameters

DEAD = 0.1
"""Filters below this share of their layer's size are nearly unused; they get their layer's factor, not to grow."""
TOLERANCE = 1e-3
"""Largest change of the outputs, as a share of the largest output, that rounding in float32 can explain."""


@torch.no_grad()
def equalize_(network: nn.Module, images: Tensor, per: str) -> None:
    """Rescale the layers that feed a BatchNorm to the size of those that feed none, in place.

    A size is a root mean square. If every layer feeds a BatchNorm, all get the size of all weights together. A layer of
    zeros only is not changed.

    Args:
        network: is left in evaluation mode.
        images: `(batch, channels, height, width)`; the outputs for them must stay as they were.
        per: `layer` for one factor per layer, `filter` for one per output channel.

    Raises:
        UserError: the outputs changed, because something other than BatchNorm uses the output of a layer.
    """
    network.eval()
    with exact_float32():
        before = network(images)
    layers = dict(_normalised_layers(network, images))
    target = _target(network, [layer.weight for layer in layers])
    for layer, norm in layers.items():
        size = sizes(layer.weight, per)
        _rescale_(layer, norm, torch.where(size > 0, target / size, 1))
    with exact_float32():
        change = float((network(images) - before).abs().max() / before.abs().max())
    if not change <= TOLERANCE:
        raise UserError(
            f"model.equalize={per}: this network's outputs change by {change:.1%}, as something other than BatchNorm "
            "sees what its layers put out; use model.equalize=none"
        )


def sizes(weight: Tensor, per: str) -> Tensor:
    """Root mean square of each filter, `(filters,)`; with `per="layer"` that of the whole layer, for each filter."""
    of_layer = _size(weight)
    if per == "layer":
        return of_layer.expand(len(weight))
    of_filter = weight.flatten(1).square().mean(dim=1).sqrt()
    return torch.where(of_filter > DEAD * of_layer, of_filter, of_layer)


def _size(weights: Tensor) -> Tensor:
    return weights.square().mean().sqrt()


def _target(network: nn.Module, rescaled: list[Any]) -> Tensor:
    """Size of the weights, biases left out, of all other layers; of all layers if those have none."""
    fixable = split_parameters(network).fixable
    weights = [parameter for name, parameter in fixable.items() if parameter.ndim > 1 and not is_bias(name)]
    chosen = {id(weight) for weight in rescaled}
    others = torch.cat([weights[0].new_empty(0), *(w.flatten() for w in weights if id(w) not in chosen)])
    return _size(others) if others.any() else _size(torch.cat([weight.flatten() for weight in weights]))


def _rescale_(layer: Any, norm: Any, factor: Tensor) -> None:
    """Multiply each filter by its factor `(filters,)` and let the BatchNorm after it undo that."""
    spread = (norm.running_var + norm.eps).sqrt()
    layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(factor)
    norm.running_mean.mul_(factor)
    norm.running_var.mul_(factor.square())
    norm.weight.mul_((norm.running_var + norm.eps).sqrt() / (factor * spread))


def _normalised_layers(network: nn.Module, images: Tensor) -> Iterator[tuple[Any, Any]]:
    """Find each layer whose output is the input of a BatchNorm, with that BatchNorm; both must run exactly once."""
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
    """Whether this is a BatchNorm with a scale and running statistics."""
    return isinstance(module, _BatchNorm) and module.affine and module.track_running_stats
