"""A state dict of a known architecture to its network: classes and channels from the layers that timm names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.models import build_network, describe_loading, read_state
from pwfn.models.plain import record_of
from pwfn.models.sources import on_this_machine
from pwfn.models.understood import loading_of


@dataclass(frozen=True)
class Given:
    """What the user says of the network; None is found out."""

    num_classes: int | None = None
    in_channels: int | None = None
    image_size: int | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the network, as timm's `--model-kwargs`."""
    ema: bool = False
    """Of a checkpoint with raw weights and their moving average, the average."""


def network_of(checkpoint: Path, model: str, given: Given) -> nn.Module:
    """Build the network of a state dict and load it.

    Raises:
        UserError: a name that is not known, a checkpoint that cannot be read or does not fit, or sizes that have to be
            given, since weights would be resampled without them.
    """
    on_this_machine(model, weights=False)  # a misspelt name is said as such
    state = read_state(checkpoint, ema=given.ema)
    record = record_of(model)
    channels = (record.get("input_size") or (3,))[0]
    found_classes = _size(state, record.get("classifier"), 0)
    if given.num_classes and found_classes and given.num_classes != found_classes:
        raise UserError(
            f"{checkpoint} tells {found_classes} classes apart, and --num-classes says {given.num_classes}; "
            "leave it out"
        )
    classes = given.num_classes or found_classes or record.get("num_classes")
    if not classes:
        raise UserError(f"{checkpoint}: {model} names no classifier that it holds; give --num-classes")
    found_channels = given.in_channels or _size(state, record.get("first_conv"), 1) or channels
    try:
        network = build_network(
            ModelConfig(name=model, checkpoint=str(checkpoint), kwargs=given.model_args, ema=given.ema),
            num_classes=classes,
            in_channels=found_channels,
            image_size=given.image_size,
        )
    except UserError as error:
        raise UserError(
            f"{error}; it was built for {classes} classes and {found_channels} channels: "
            "--num-classes, --in-channels, --image-size and --model-kwargs change that"
        ) from error
    resampled = loading_of(network).resized
    if resampled and given.image_size is None:
        sizes = f" {tuple(state[resampled[0]].shape)}" if resampled[0] in state else ""
        raise UserError(
            f"{checkpoint}: {resampled[0]}{sizes} would be resampled to "
            f"{tuple(network.state_dict()[resampled[0]].shape)}, which no longer shares values: the checkpoint was "
            "made for another image size or with other arguments; say which by --image-size and --model-kwargs"
        )
    return network


def describe_source(network: nn.Module) -> str:
    """Say where the weights came from, and what happened to them on the way."""
    (line,) = (line for line in describe_loading(network).lines() if line.startswith("weights: "))
    return line.removeprefix("weights: ").replace("model.ema: true", "--ema")


def parse_kwargs(texts: list[str]) -> dict[str, Any]:
    """Read `name=value` pairs; a value is JSON, or a text where it is not.

    Raises:
        UserError: a pair without a name.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--model-kwargs: {text!r} is not of the form name=value, e.g. patch_size=4")
        try:
            found[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except ValueError:
            found[name] = value
    return found


def _size(state: Mapping[str, Tensor], layers: Any, axis: int) -> int | None:
    """Size of the weight of the first of these layers that the state has."""
    for layer in (layers,) if isinstance(layers, str) else layers or ():
        weight = state.get(f"{layer}.weight")
        if isinstance(weight, torch.Tensor) and weight.ndim > axis:
            return weight.shape[axis]
    return None
