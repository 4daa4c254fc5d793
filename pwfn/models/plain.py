"""A network by what a file says of it, with torch and timm alone: no configuration, no weights, nothing downloaded.

Our own networks take torch alone: timm imports torchvision, and both take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from pwfn.errors import UserError, first_line, nearest_names
from pwfn.models.caches import keep_nothing_computed
from pwfn.models.networks import ARCHITECTURES


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
    if name not in ARCHITECTURES:
        _check_is_timms(name)
    arguments = {**_size_argument(name, size), **(model_args or {})}
    try:
        with torch.random.fork_rng(devices=[]):
            network = _construct(name, {"num_classes": num_classes, "in_chans": in_channels, **arguments})
    except MemoryError:  # the machine's fault, not that of the arguments
        raise
    except Exception as error:  # on arguments that make no network, timm's constructors raise nearly anything
        what = f"{num_classes} classes, {in_channels} channels and {arguments}"
        raise UserError(f"architecture {name} cannot be built for {what}: {first_line(error)}") from error
    network.arguments = dict(model_args or {})
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (in_channels, *size)}
    network.fused = fused
    network.float().eval()
    keep_nothing_computed(network)
    _check_forward(name, network, num_classes)
    if fused:
        from pwfn.models.fusing import fuse  # imports timm

        network = fuse(network, torch.zeros(1, in_channels, *size))
    return cast(nn.Module, network)


def record_of(name: str) -> dict[str, Any]:
    """Return timm's record of an architecture (classifier, first convolution, ...); empty where it has none."""
    if name in ARCHITECTURES:
        return dict(ARCHITECTURES[name].record)
    import timm

    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return {} if known is None else dict(known.to_dict())


def _check_is_timms(name: str) -> None:
    import timm

    if not timm.is_model(name):
        known = [*timm.list_models(), *ARCHITECTURES]
        raise UserError(f"architecture {name!r} is neither timm's nor ours{nearest_names(name, known)}")


def _construct(name: str, arguments: Mapping[str, Any]) -> Any:
    """Call an architecture's constructor, and note its record on the network, as timm does."""
    if name not in ARCHITECTURES:
        import timm

        return timm.create_model(name, pretrained=False, **arguments)
    network: Any = ARCHITECTURES[name].constructor(**arguments)
    network.pretrained_cfg = {"architecture": name, **ARCHITECTURES[name].record}
    return network


def _size_argument(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Give the size to networks that are built for one."""
    if not record_of(name).get("fixed_input_size"):
        return {}
    return {"img_size": size[0] if size[0] == size[1] else size}


def _check_forward(name: str, network: nn.Module, num_classes: int) -> None:
    """Pass one black image through, since only that says whether the network takes this size."""
    channels, height, width = cast(tuple[int, int, int], network.pretrained_cfg["input_size"])  # type: ignore[index]
    try:
        with torch.inference_mode():
            scores = network(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise UserError(f"{name} cannot take {width}x{height} images: {first_line(error)}") from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, num_classes):
        raise UserError(f"{name} does not give one score per class; only image classifiers can be used")
