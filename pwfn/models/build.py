"""A network by name, with its weights, for a data set's channels, size and classes."""

from __future__ import annotations

import logging
from typing import Any, cast

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, is_model, split_model_name_tag
from torch import nn

from pwfn.config import ModelConfig
from pwfn.errors import UserError, first_line, nearest_names
from pwfn.models import networks  # noqa: F401  (registers ours with timm)
from pwfn.models.checkpoints import load_checkpoint
from pwfn.paths import expand_path

log = logging.getLogger(__name__)


def build_network(
    config: ModelConfig,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build the network that a trial starts from: float32, in evaluation mode, on the CPU.

    Args:
        config: which network, and where its weights come from.
        num_classes: classes of the data. A pretrained network of another number gets a new head.
        in_channels: channels of the data. timm adapts a pretrained first convolution.
        image_size: side of the input in pixels, or height and width; None takes the network's own.
        seed: seeds every weight that is not loaded; torch's global generator is left as it was.

    Raises:
        UserError: unknown name, weights that cannot be had or do not fit, an image size it cannot take.
    """
    name = config.name
    _check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: Any = _create(config, num_classes, in_channels, image_size)
    if config.checkpoint is not None:
        load_checkpoint(network, expand_path(config.checkpoint, "model.checkpoint"))
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = size or network.pretrained_cfg["input_size"][-2:]
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (in_channels, *size)}
    network.float().eval()
    _check_forward(name, network, num_classes)
    return cast(nn.Module, network)


def _check_name(name: str) -> None:
    if ":" in name:  # hf-hub:... and local-dir:... name their own sources
        return
    architecture, tag = split_model_name_tag(name)
    if not is_model(architecture):
        known = timm.list_models()
        raise UserError(f"model.name: {name!r} is neither timm's nor ours{nearest_names(architecture, known)}")
    tags = [full.partition(".")[2] for full in get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        raise UserError(f"model.name: {architecture} has no weights {tag!r}; known are {', '.join(filter(None, tags))}")


def _create(config: ModelConfig, num_classes: int, in_channels: int, image_size: int | tuple[int, int] | None) -> Any:
    name = config.name
    sizes: dict[str, int | tuple[int, int]] = {}
    if image_size is not None and _has_fixed_size(name):
        sizes["img_size"] = image_size
    try:
        network: Any = timm.create_model(
            name, pretrained=config.pretrained, num_classes=num_classes, in_chans=in_channels, **sizes
        )
    except OSError as error:
        fix = "fetch them on a machine with network access, or give model.checkpoint"
        raise UserError(
            f"model.pretrained: the weights of {name} cannot be had ({first_line(error)}); {fix}"
        ) from error
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        what = f"{num_classes} classes and {in_channels} channels"
        raise UserError(f"model: {name} cannot be built for {what}: {first_line(error)}") from error
    own_classes = network.pretrained_cfg.get("num_classes", num_classes)
    if config.pretrained and own_classes != num_classes:
        log.info("%s: the pretrained head has %d classes, the data %d: new head", name, own_classes, num_classes)
    return network


def _has_fixed_size(name: str) -> bool:
    record = timm.get_pretrained_cfg(name) if ":" not in name else None
    return bool(record is not None and record.fixed_input_size)


def _check_forward(name: str, network: nn.Module, num_classes: int) -> None:
    """Pass one black image through, since only that says whether the network takes this size."""
    channels, height, width = cast(tuple[int, int, int], network.pretrained_cfg["input_size"])  # type: ignore[index]
    try:
        with torch.inference_mode():
            scores = network(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UserError(f"data.image_size: {name} cannot take {width}x{height} images: {first_line(error)}") from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, num_classes):
        raise UserError(f"model.name: {name} does not give one score per class; only image classifiers can be used")
