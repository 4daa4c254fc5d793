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
from pwfn.models import build_network, read_state
from pwfn.models.plain import check_known, record_of


@dataclass(frozen=True)
class Given:
    """What the user says of the network; None is found out."""

    num_classes: int | None = None
    in_channels: int | None = None
    image_size: int | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the network, as timm's `--model-kwargs`."""


def network_of(checkpoint: Path, model: str, given: Given) -> nn.Module:
    """Build the network of a state dict and load it.

    Raises:
        UserError: a checkpoint that cannot be read or does not fit, or sizes that have to be given.
    """
    if ":" not in model:  # names of folders and of the hub are looked up when the network is built
        check_known(model)
    state = read_state(checkpoint)
    record = record_of(model)
    channels = (record.get("input_size") or (3,))[0]
    classes = given.num_classes or _size(state, record.get("classifier"), 0)
    if classes is None:
        classes = record.get("num_classes")
    if not classes:
        raise UserError(f"{checkpoint}: {model} names no classifier that it holds; give --num-classes")
    found_channels = given.in_channels or _size(state, record.get("first_conv"), 1) or channels
    try:
        return build_network(
            ModelConfig(name=model, checkpoint=str(checkpoint), kwargs=given.model_args),
            num_classes=classes,
            in_channels=found_channels,
            image_size=given.image_size,
        )
    except UserError as error:
        raise UserError(
            f"{error}; it was built for {classes} classes and {found_channels} channels: "
            "--num-classes, --in-channels, --image-size and --model-kwargs change that"
        ) from error


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
