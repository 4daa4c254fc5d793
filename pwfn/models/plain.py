"""A network by what a file says of it, with torch and timm alone: no configuration, no weights, nothing downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models import is_model
from torch import nn

from pwfn.errors import UserError, first_line, nearest_names
from pwfn.models import networks  # noqa: F401  (registers ours with timm)
from pwfn.models.caches import keep_nothing_computed
from pwfn.models.fusing import fuse


def build_plain(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    size: tuple[int, int],
    model_args: Mapping[str, Any] | None = None,
    fused: bool = False,
) -> nn.Module:
    """Build a network with random weights, in evaluation mode; torch's global generator is left as it was.

    Args:
        name: in timm's registry or ours.
        num_classes: class scores.
        in_channels: channels of the images.
        size: height and width of the images.
        model_args: further arguments of the network.
        fused: fuse it for use, as timm does, after building.

    Raises:
        UserError: unknown name, arguments or an image size that the network does not take.
    """
    check_known(name)
    arguments = {**_size_argument(name, size), **(model_args or {})}
    try:
        with torch.random.fork_rng(devices=[]):
            network: Any = timm.create_model(
                name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **arguments
            )
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError, AttributeError) as error:
        what = f"{num_classes} classes, {in_channels} channels and {arguments}"
        raise UserError(f"architecture {name} cannot be built for {what}: {first_line(error)}") from error
    network.arguments = dict(model_args or {})
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (in_channels, *size)}
    network.fused = fused
    network.float().eval()
    keep_nothing_computed(network)
    _check_forward(name, network, num_classes)
    if fused:
        network = fuse(network, torch.zeros(1, in_channels, *size))
    return cast(nn.Module, network)


def check_known(name: str) -> None:
    """Refuse an architecture that neither timm nor we have.

    Raises:
        UserError: names those that are spelt alike.
    """
    if not is_model(name):
        raise UserError(f"architecture {name!r} is neither timm's nor ours{nearest_names(name, timm.list_models())}")


def record_of(name: str) -> dict[str, Any]:
    """Return timm's record of an architecture (classifier, first convolution, ...); empty where it has none."""
    known = timm.get_pretrained_cfg(name) if is_model(name) else None
    return {} if known is None else dict(known.to_dict())


def _size_argument(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Give the size to networks that are built for one."""
    record = timm.get_pretrained_cfg(name)
    if record is None or not record.fixed_input_size:
        return {}
    return {"img_size": size[0] if size[0] == size[1] else size}


def _check_forward(name: str, network: nn.Module, num_classes: int) -> None:
    """Pass one black image through, since only that says whether the network takes this size."""
    channels, height, width = cast(tuple[int, int, int], network.pretrained_cfg["input_size"])  # type: ignore[index]
    try:
        with torch.inference_mode():
            scores = network(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UserError(f"{name} cannot take {width}x{height} images: {first_line(error)}") from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, num_classes):
        raise UserError(f"{name} does not give one score per class; only image classifiers can be used")
