"""Builds the network that a file describes, with torch and timm alone: no configuration, nothing downloaded."""

from __future__ import annotations

from typing import Any, cast

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import timm
import torch
from timm.models import is_model
from torch import nn

from pwfn.errors import UserError, first_line, nearest_names
from pwfn.export.metadata import Architecture
from pwfn.models import networks  # noqa: F401  (registers ours with timm)


def build(architecture: Architecture) -> nn.Module:
    """Build a network with random weights, in evaluation mode; torch's global generator is left as it was.

    Raises:
        UserError: unknown name, arguments or an image size that the network does not take.
    """
    if not is_model(architecture.name):
        raise UserError(
            f"architecture {architecture.name!r} is neither timm's nor ours"
            f"{nearest_names(architecture.name, timm.list_models())}; is timm older than the file?"
        )
    with torch.random.fork_rng(devices=[]):
        network: Any = _create(architecture)
    height, width = architecture.size
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (architecture.in_channels, height, width)}
    network.float().eval()
    _check_forward(architecture, network)
    return cast(nn.Module, network)


def _create(architecture: Architecture) -> Any:
    record = timm.get_pretrained_cfg(architecture.name)
    kwargs = dict(architecture.kwargs)
    if record is not None and record.fixed_input_size:
        kwargs.setdefault("img_size", architecture.size if architecture.size[0] != architecture.size[1] else architecture.size[0])
    try:
        return timm.create_model(
            architecture.name,
            pretrained=False,
            num_classes=architecture.num_classes,
            in_chans=architecture.in_channels,
            **kwargs,
        )
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError, AttributeError) as error:
        what = f"{architecture.num_classes} classes, {architecture.in_channels} channels and {kwargs}"
        raise UserError(f"architecture {architecture.name} cannot be built for {what}: {first_line(error)}") from error


def _check_forward(architecture: Architecture, network: nn.Module) -> None:
    """Pass one black image through, since only that says whether the network takes this size."""
    height, width = architecture.size
    try:
        with torch.inference_mode():
            scores = network(torch.zeros(1, architecture.in_channels, height, width))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UserError(f"{architecture.name} cannot take {width}x{height} images: {first_line(error)}") from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, architecture.num_classes):
        raise UserError(f"{architecture.name} does not give one score per class; only image classifiers can be used")
