"""Networks as they are used: branches and norms fused where timm can, standardised convolutions made plain."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from timm.models import reparameterize_model
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from pwfn.errors import UserError

STANDARDISED_LAYERS = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)
"""Convolutions that multiply by their stored weight after each filter has got a mean of zero and one variance."""
TOLERANCE = 1e-3
"""Largest change of the outputs, as a share of the largest of them, that rounding explains."""


@torch.no_grad()
def fuse(network: nn.Module, image: Tensor) -> nn.Module:
    """Return the network in the form in which it is used; it is changed in place, and in evaluation mode.

    Raises:
        UserError: it does not compute what it did on an image `(1, channels, height, width)`.
    """
    before = network.eval()(image)
    fused: Any = reparameterize_model(network, inplace=True)
    for name, module in list(fused.named_modules()):
        if isinstance(module, STANDARDISED_LAYERS):
            fused.set_submodule(name, _plain(module))
    fused.eval()
    for parameter in fused.parameters():
        parameter.requires_grad_(True)
    after = fused(image)
    if not before.is_meta and not (after - before).abs().max() <= TOLERANCE * before.abs().max().clamp(min=TOLERANCE):
        raise UserError("model.fuse: this network, fused by timm, computes something else; use model.fuse: false")
    return cast(nn.Module, fused)


@torch.no_grad()
def is_fusible(network: nn.Module) -> bool:
    """Whether timm would give a network other parameters when it fuses it for use."""
    if not any(hasattr(m, name) for m in network.modules() for name in ("fuse", "reparameterize", "switch_to_deploy")):
        return False
    fused = reparameterize_model(deepcopy(network).eval(), inplace=True)
    return set(dict(fused.named_parameters())) != set(dict(network.named_parameters()))


def _plain(layer: Any) -> nn.Module:
    """Make a convolution whose stored weight is the one that a standardised layer computes."""
    gain = (layer.gain * layer.scale).view(-1) if hasattr(layer, "gain") else None
    rows = layer.weight.reshape(1, layer.out_channels, -1)
    weight = batch_norm(rows, None, None, weight=gain, training=True, momentum=0.0, eps=layer.eps)
    same = getattr(layer, "same_pad", False)
    plain: Any = (Conv2dSame if same else nn.Conv2d)(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    plain.weight.copy_(weight.reshape_as(layer.weight))
    if layer.bias is not None:
        plain.bias.copy_(layer.bias)
    return cast(nn.Module, plain)
