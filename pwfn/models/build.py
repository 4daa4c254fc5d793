"""A network by name, with its weights, for a data set's channels, size and classes."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import parse_model_name
from torch import Tensor, nn
from torch.func import functional_call

from pwfn.config import ModelConfig, TrialConfig
from pwfn.errors import UserError, first_line
from pwfn.models.caches import keep_nothing_computed
from pwfn.models.checkpoints import check_weights, load_checkpoint
from pwfn.models.fusing import fuse
from pwfn.models.sources import (
    WAY_OUT,
    folder_has_fixed_size,
    on_this_machine,
    reachable_settings,
)
from pwfn.models.understood import Loading, loading_of
from pwfn.paths import expand_path

log = logging.getLogger(__name__)

ImageSize = int | tuple[int, int]
"""Side of the input in pixels, or its height and width."""

MANAGED = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate")
"""Arguments of a folder that a file does not carry on: they are known otherwise, or matter in training only."""


def build_network(
    config: ModelConfig,
    *,
    num_classes: int,
    in_channels: int,
    image_size: ImageSize | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build the network that a trial starts from: float32, in evaluation mode, on the CPU.

    What `describe_loading` says about it is noted on it, as are the arguments that build it again.

    Args:
        config: which network, and where its weights come from.
        num_classes: classes of the data.
        in_channels: channels of the data. timm adapts a pretrained first convolution.
        image_size: side of the input in pixels, or height and width; None takes the network's own.
        seed: seeds every weight that is not loaded; torch's global generator is left as it was.

    Raises:
        UserError: unknown name, weights that cannot be had, cannot be used or do not fit, an image size it cannot take.
    """
    name = config.name
    config = config.model_copy(update={"name": on_this_machine(name, weights=config.pretrained)})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: Any = _create(config, num_classes, in_channels, image_size)
        network.loading = _loaded(config, network, num_classes, in_channels, image_size)
        if config.pretrained:
            network.loading = replace(network.loading, source=f"pretrained weights of {name}")
    size = image_size or _own_size(config, network)
    height, width = (size, size) if isinstance(size, int) else size
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (in_channels, height, width)}
    network.pretrained_cfg.pop("state_dict", None)
    network.arguments = _arguments(config, network, image_size)
    network.fused = config.fuse
    network.float().eval()
    keep_nothing_computed(network)
    _check_forward(name, network, num_classes)
    network.unseen = _unseen_border(network) if image_size is not None or config.kwargs else (0, 0)
    if config.fuse:
        network = fuse(network, _black_image(network))
    return cast(nn.Module, network)


def check_has_weights(config: TrialConfig) -> None:
    """Refuse to compress a network that was neither loaded nor trained, unless the user insists.

    Raises:
        UserError: names the ways to give it weights.
    """
    model = config.model
    if not (model.has_weights or model.random or config.baseline.epochs > 0):
        raise UserError(
            f"model.name={model.name}: its weights are random, as none are loaded and none trained; give "
            "model.checkpoint, model.pretrained: true or baseline.epochs, or insist with model.random: true"
        )


def check_head_is_trained(config: TrialConfig, network: nn.Module) -> None:
    """Refuse to compress a classifier that was drawn anew and not trained, unless the user insists.

    Raises:
        UserError: names its first tensor.
    """
    new_head = loading_of(network).new_head
    if new_head and config.baseline.epochs == 0 and not config.model.random:
        raise UserError(
            f"model.new_head: the new classifier ({new_head[0]}) is random; train it with baseline.epochs, or insist "
            "with model.random: true"
        )


def _create(
    config: ModelConfig,
    num_classes: int,
    in_channels: int,
    image_size: ImageSize | None,
    overlay: Mapping[str, Any] | None = None,
) -> Any:
    """Build a network through timm; `overlay` replaces where its pretrained weights come from."""
    name = config.name
    settings: dict[str, Any] = dict(config.kwargs)
    if image_size is not None and _has_fixed_size(config):
        settings.setdefault("img_size", image_size)
    if overlay is not None:
        settings["pretrained_cfg_overlay"] = overlay
    elif config.pretrained and parse_model_name(name)[0] is None:
        settings |= reachable_settings(name)
    try:
        return timm.create_model(
            name,
            pretrained=overlay is not None or (config.pretrained and parse_model_name(name)[0] != "local-dir"),
            num_classes=num_classes,
            in_chans=in_channels,
            **settings,
        )
    except OSError as error:
        raise UserError(
            f"model.pretrained: the weights of {name} cannot be had ({first_line(error)}); {WAY_OUT}"
        ) from error
    except MemoryError:  # the machine's fault, not that of the arguments
        raise
    except Exception as error:  # on arguments that make no network, timm's constructors raise nearly anything
        given = f", model.kwargs={config.kwargs}" if config.kwargs else ""
        what = f"{num_classes} classes and {in_channels} channels{given}"
        raise UserError(f"model: {name} cannot be built for {what}: {first_line(error)}") from error


def _loaded(
    config: ModelConfig, network: Any, num_classes: int, in_channels: int, image_size: ImageSize | None
) -> Loading:
    """Load a checkpoint, or say what timm loaded, having looked at it."""
    source, model = parse_model_name(config.name)
    own_file = config.checkpoint or (model if config.pretrained and source == "local-dir" else None)
    if own_file is not None:

        def rebuild(state: Mapping[str, Tensor], classes: int, channels: int) -> nn.Module:
            overlay = {
                "state_dict": state, "custom_load": False, "source": "", "file": None, "url": None, "hf_hub_id": None,
                "num_classes": classes, "label_offset": 0,
            }  # fmt: skip
            return cast(nn.Module, _create(config, classes, channels, image_size, overlay))

        path = expand_path(own_file, "model.checkpoint")
        return load_checkpoint(network, path, rebuild, ema=config.ema, new_head=config.new_head)
    if not config.pretrained:
        return Loading()
    state = network.state_dict()
    check_weights(state, f"model.pretrained: {config.name}")
    own_classes = network.pretrained_cfg.get("num_classes", num_classes)
    layers = network.pretrained_cfg.get("classifier") or ()
    head = tuple(
        name
        for name in state
        if own_classes != num_classes
        and any(name.startswith(f"{layer}.") for layer in ((layers,) if isinstance(layers, str) else layers))
    )
    if head and not config.new_head:
        raise UserError(
            f"model.pretrained: {config.name} tells {own_classes} classes apart, but the data has {num_classes}; "
            "model.new_head: true replaces the classifier, which then has to be trained"
        )
    if head:
        log.info("%s: the pretrained head has %d classes, the data %d: new head", config.name, own_classes, num_classes)
    return Loading(source=f"pretrained weights of {config.name}", num_loaded=len(state) - len(head), new_head=head)


def _arguments(config: ModelConfig, network: Any, image_size: ImageSize | None) -> dict[str, Any]:
    """Arguments beside the usual ones that build the architecture again: the user's, and a hub's or a folder's."""
    source, _ = parse_model_name(config.name)
    of_source = dict(getattr(network, "pretrained_model_args", {})) if source is not None else {}
    if "img_size" in of_source and image_size is not None and _has_fixed_size(config):
        of_source["img_size"] = image_size  # as the data asked for
    return {name: value for name, value in of_source.items() if name not in MANAGED} | {
        name: list(value) if isinstance(value, tuple) else value for name, value in config.kwargs.items()
    }


def _own_size(config: ModelConfig, network: Any) -> tuple[int, int]:
    size = config.kwargs.get("img_size")
    if size is None:
        size = getattr(network, "pretrained_model_args", {}).get("img_size")
    if size is None:
        size = network.pretrained_cfg["input_size"]
    height, width = size[-2:] if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def _has_fixed_size(config: ModelConfig) -> bool:
    if "img_size" in config.kwargs or config.kwargs.get("dynamic_img_size"):
        return "img_size" in config.kwargs
    source, model = parse_model_name(config.name)
    if source == "local-dir":
        return folder_has_fixed_size(Path(model))
    record = timm.get_pretrained_cfg(config.name)
    return bool(record is not None and record.fixed_input_size)


def _black_image(network: nn.Module) -> Tensor:
    channels, height, width = cast(tuple[int, int, int], network.pretrained_cfg["input_size"])  # type: ignore[index]
    return torch.zeros(1, channels, height, width)


def _check_forward(name: str, network: nn.Module, num_classes: int) -> None:
    """Pass one black image through, since only that says whether the network takes this size."""
    image = _black_image(network)
    height, width = image.shape[-2:]
    try:
        with torch.inference_mode():
            scores = network(image)
    except (RuntimeError, AssertionError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise UserError(f"data.image_size: {name} cannot take {width}x{height} images: {first_line(error)}") from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, num_classes):
        raise UserError(f"model.name: {name} does not give one score per class; only image classifiers can be used")


@torch.inference_mode()
def _unseen_border(network: nn.Module) -> tuple[int, int]:
    """Count the rows and columns at the lower and right border of its images that change nothing.

    A network that cuts images into patches may leave out what is no whole patch, and say nothing.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(_black_image(network).shape, generator=generator)
    # timm begins some classifiers and residual branches with zeros, behind which nothing is seen.
    begun = {
        name: torch.randn(parameter.shape, generator=generator)
        for name, parameter in network.named_parameters()
        if not name.endswith("bias") and not parameter.any()
    }
    scores: Tensor = functional_call(network, begun, image)

    def sees(dim: int, size: int) -> bool:
        """Whether the last rows (or columns), so many of them, change anything."""
        changed = image.clone()
        changed.narrow(dim, image.shape[dim] - size, size).neg_()
        return not torch.equal(functional_call(network, begun, changed), scores)

    def border(dim: int) -> int:
        """How many of the last rows (or columns) change nothing; mostly a single look says that there are none."""
        sizes = range(1, image.shape[dim] + 1)
        return 0 if sees(dim, 1) else bisect_left(sizes, True, key=partial(sees, dim))

    rows, columns = border(2), border(3)
    sees_nothing = rows == image.shape[2]
    return (0, 0) if sees_nothing else (rows, columns)
