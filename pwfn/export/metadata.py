"""What a file says about the network it holds: enough to build it, feed it and trace it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from torch import nn

from pwfn.config import RESERVED_ARGUMENTS
from pwfn.data.contract import Preprocessing
from pwfn.models import preprocessing_of

MAX_PIXELS = 1 << 24
"""Largest input, over all channels, that a file may ask for: building a network passes one image through it."""


def _none_if_not_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Scalar = Annotated[float | int | bool | str | None, BeforeValidator(_none_if_not_finite)]
"""A number or a text; JSON has no NaN, so that is null."""
Count = Annotated[int, Field(ge=1, le=1 << 24)]
BoundedInt = Annotated[int, Field(ge=-(1 << 14), le=1 << 14)]
ShortText = Annotated[str, Field(max_length=200)]
ArchitectureArgument = (
    bool
    | BoundedInt
    | float
    | ShortText
    | Annotated[list[bool | BoundedInt | float | ShortText], Field(max_length=64)]
    | None
)
"""Bounded, so that a small file cannot ask for a huge network: names and shapes are compared on a skeleton first."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Architecture(_Frozen):
    """How timm builds the network."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,200}$")]
    """In timm's registry or ours. No address: loading a file must not download anything."""
    num_classes: Count
    """Class scores."""
    in_channels: Count
    """Channels of the images."""
    image_size: Count | tuple[Count, Count]
    """Side of the input in pixels, or its height and width."""
    model_args: dict[str, ArchitectureArgument] = {}
    """Further arguments of timm's `create_model`."""
    fused: bool = False
    """Whether timm's fusing for use comes after building, and before the weights."""

    @field_validator("model_args")
    @classmethod
    def _arguments_are_harmless(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        reserved = [name for name in arguments if name in RESERVED_ARGUMENTS]
        if reserved:
            raise ValueError(f"the argument {reserved[0]} is not one of the architecture")
        return arguments

    @model_validator(mode="after")
    def _input_is_bounded(self) -> Architecture:
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        num_pixels = self.in_channels * height * width
        if num_pixels > MAX_PIXELS:
            raise ValueError(f"an input of {num_pixels} numbers; at most {MAX_PIXELS} are allowed")
        return self


class ImagePreparation(_Frozen):
    """How images become the network's input; the fields of `pwfn.data.Preprocessing`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: Count | tuple[Count, Count]
    interpolation: str
    crop_fraction: Annotated[float, Field(gt=0, le=1)]
    crop_mode: str = "center"


class ModelMetadata(_Frozen):
    """Everything a file says beside the weights; all but the weights themselves may be unknown."""

    architecture: Architecture | None = None
    """None for a state dict of unknown architecture, which `pwfn.load` cannot build."""
    class_names: tuple[str, ...] | None = None
    """Of the classes, in the order of the scores."""
    preprocessing: ImagePreparation | None = None
    """How to prepare images."""
    metrics: dict[str, Scalar] = {}
    """As measured when the file was made, e.g. test_top1, a share in [0, 1]."""
    provenance: dict[str, Scalar] = {}
    """Where the network comes from: study, trial, seed, commit, versions."""


def describe_network(
    network: nn.Module,
    *,
    class_names: tuple[str, ...] | None = None,
    metrics: Mapping[str, Scalar] | None = None,
    provenance: Mapping[str, Scalar] | None = None,
) -> ModelMetadata:
    """Collect the metadata of a network of `pwfn.models.build_network`."""
    record: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    channels, height, width = record["input_size"]
    architecture = Architecture(
        name=record["architecture"],
        num_classes=network.num_classes,
        in_channels=channels,
        image_size=height if height == width else (height, width),
        model_args=getattr(network, "arguments", {}),
        fused=bool(getattr(network, "fused", False)),
    )
    return ModelMetadata(
        architecture=architecture,
        class_names=class_names,
        preprocessing=ImagePreparation.model_validate(vars(preprocessing_of(network))),
        metrics=dict(metrics or {}),
        provenance=dict(provenance or {}),
    )


def preprocessing_from(metadata: ModelMetadata) -> Preprocessing | None:
    """Return how images are prepared, as `pwfn.data` takes it."""
    found = metadata.preprocessing
    return None if found is None else Preprocessing(**found.model_dump())
