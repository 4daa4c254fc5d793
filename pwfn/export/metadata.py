"""What a file says about the network it holds: enough to build it, feed it and trace it.

Plain dataclasses with checks of their own: a file is loaded where only torch and timm are installed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from pwfn.data.contract import Preprocessing

MAX_PIXELS = 1 << 24
"""Largest input, over all channels, that a file may ask for: building a network passes one image through it."""
MAX_COUNT = 1 << 24
NAME = re.compile(r"^[A-Za-z0-9_.\-]{1,200}$")
MAX_DEPTH, MAX_INTEGER, MAX_LENGTH = 2, 1 << 14, 200
"""Deepest lists, largest whole number and longest text or list among an architecture's arguments: a small file must not
ask for a huge network."""
RESERVED = frozenset(
    {"num_classes", "in_chans", "pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay",
     "pretrained_model_args", "cache_dir", "scriptable", "exportable", "no_jit"}
)  # fmt: skip
"""Arguments that do not describe the architecture, or that would read or fetch something."""

Scalar = float | int | bool | str | None
"""A number or a text; JSON has no NaN, so that is null."""


@dataclass(frozen=True)
class Architecture:
    """How timm builds the network."""

    name: str
    """In timm's registry or ours. No address: loading a file must not download anything."""
    num_classes: int
    """Class scores."""
    in_channels: int
    """Channels of the images."""
    image_size: int | tuple[int, int]
    """Side of the input in pixels, or its height and width."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm's `create_model`: numbers, texts, and lists of those."""
    fused: bool = False
    """Whether timm's fusing for use comes after building, and before the weights."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.match(self.name):
            raise ValueError(f"architecture.name: {self.name!r} should match pattern {NAME.pattern}")
        for name in ("num_classes", "in_channels"):
            _check_count(f"architecture.{name}", getattr(self, name))
        _check_size("architecture.image_size", self.image_size)
        num_pixels = self.in_channels * self.size[0] * self.size[1]
        if num_pixels > MAX_PIXELS:
            raise ValueError(f"architecture: an input of {num_pixels} numbers; at most {MAX_PIXELS} are allowed")
        if not isinstance(self.model_args, dict) or not isinstance(self.fused, bool):
            raise ValueError("architecture: model_args is an object and fused a bool")  # noqa: TRY004
        for name, value in self.model_args.items():
            if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
                raise ValueError(f"architecture.model_args: the argument {name} is not one of the architecture")
            if not _is_plain(value, MAX_DEPTH):
                raise ValueError(
                    f"architecture.model_args.{name}: small numbers, short texts and lists of them are allowed"
                )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


@dataclass(frozen=True)
class ImagePreparation:
    """How images become the network's input; the fields of `pwfn.data.Preprocessing`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | tuple[int, int]
    interpolation: str
    crop_fraction: float
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(_is_number(value) for value in values):
                raise ValueError(f"preprocessing.{name}: finite numbers are needed, one per channel")
        _check_size("preprocessing.image_size", self.image_size)
        for name in ("interpolation", "crop_mode"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"preprocessing.{name}: a text is needed")  # noqa: TRY004
        if not _is_number(self.crop_fraction) or not 0 < self.crop_fraction <= 1:
            raise ValueError(f"preprocessing.crop_fraction: {self.crop_fraction!r} is not in (0, 1]")


@dataclass(frozen=True)
class ModelMetadata:
    """Everything a file says beside the weights; all but the weights themselves may be unknown."""

    architecture: Architecture | None = None
    """None for a state dict of unknown architecture, which `pwfn.load` cannot build."""
    class_names: tuple[str, ...] | None = None
    """Of the classes, in the order of the scores."""
    preprocessing: ImagePreparation | None = None
    """How to prepare images."""
    metrics: dict[str, Scalar] = field(default_factory=dict)
    """As measured when the file was made, e.g. test_top1, a share in [0, 1]; null for what was not finite."""
    provenance: dict[str, Scalar] = field(default_factory=dict)
    """Where the network comes from: study, trial, seed, commit, versions."""

    def __post_init__(self) -> None:
        if self.class_names is not None and not all(isinstance(name, str) for name in self.class_names):
            raise ValueError("class_names: texts are needed")
        for name in ("metrics", "provenance"):
            found = getattr(self, name)
            if not isinstance(found, dict) or not all(
                isinstance(key, str) and (value is None or isinstance(value, bool | int | float | str))
                for key, value in found.items()
            ):
                raise ValueError(f"{name}: numbers and texts by name are needed")
            object.__setattr__(self, name, {key: _none_if_not_finite(value) for key, value in found.items()})


def metadata_from(found: Any) -> ModelMetadata:
    """Build the metadata from what JSON holds.

    Raises:
        ValueError: names the field that is wrong.
    """
    data = _fields_of("metadata", found, ModelMetadata)
    architecture, preparation, names = data.get("architecture"), data.get("preprocessing"), data.get("class_names")
    if architecture is not None:
        own = _fields_of("architecture", architecture, Architecture, optional=("model_args", "fused"))
        data["architecture"] = Architecture(**own | {"image_size": _as_tuple(own["image_size"])})
    if preparation is not None:
        own = _fields_of("preprocessing", preparation, ImagePreparation, optional=("crop_mode",))
        lists = {name: _as_tuple(own[name]) for name in ("mean", "std", "image_size")}
        data["preprocessing"] = ImagePreparation(**own | lists)
    if names is not None:
        if not isinstance(names, list | tuple):
            raise ValueError("class_names: a list of texts is needed")
        data["class_names"] = tuple(names)
    return ModelMetadata(**data)


def metadata_to_json(metadata: ModelMetadata) -> str:
    """Write the metadata as JSON, without what is unknown."""
    found = {name: value for name, value in asdict(metadata).items() if value not in (None, {})}
    if metadata.architecture is not None:
        found["architecture"] = {
            name: value for name, value in found["architecture"].items() if value not in ({}, False)
        }
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def metadata_from_json(text: str) -> ModelMetadata:
    """Undo `metadata_to_json`.

    Raises:
        ValueError: it is not JSON, or names the field that is wrong.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the metadata is not JSON") from error
    return metadata_from(found)


def describe_network(
    network: nn.Module,
    *,
    class_names: tuple[str, ...] | None = None,
    metrics: Mapping[str, Scalar] | None = None,
    provenance: Mapping[str, Scalar] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> ModelMetadata:
    """Collect the metadata of a network of `pwfn.models.build_network`.

    Args:
        network: notes as `arguments` and `fused` how it was built.
        class_names: in the order of the scores.
        metrics: as measured.
        provenance: where it comes from.
        model_args: further arguments that build it again, where it does not note them.
    """
    from pwfn.models import preprocessing_of

    record: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    channels, height, width = record["input_size"]
    architecture = Architecture(
        name=record["architecture"],
        num_classes=network.num_classes,  # type: ignore[arg-type]
        in_channels=channels,
        image_size=height if height == width else (height, width),
        model_args=_as_lists(dict(getattr(network, "arguments", model_args or {}))),
        fused=bool(getattr(network, "fused", False)),
    )
    preparation = preprocessing_of(network)
    known = {each.name: getattr(preparation, each.name) for each in fields(preparation)}
    return ModelMetadata(
        architecture=architecture,
        class_names=class_names,
        preprocessing=ImagePreparation(**known),
        metrics=dict(metrics or {}),
        provenance=dict(provenance or {}),
    )


def preprocessing_from(metadata: ModelMetadata) -> Preprocessing | None:
    """Return how images are prepared, as `pwfn.data` takes it."""
    from pwfn.data.contract import Preprocessing

    found = metadata.preprocessing
    if found is None:
        return None
    known = {each.name for each in fields(Preprocessing)}
    return Preprocessing(**{name: value for name, value in asdict(found).items() if name in known})


def _fields_of(where: str, found: Any, kind: type, optional: Iterable[str] | None = None) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise ValueError(f"{where}: an object is needed")  # noqa: TRY004
    names = [each.name for each in fields(kind)]
    unknown = [str(name) for name in found if name not in names]
    missing = [] if optional is None else [name for name in names if name not in found and name not in optional]
    if unknown or missing:
        raise ValueError(f"{where}: {f'{unknown[0]} is unknown' if unknown else f'{missing[0]} is missing'}")
    return dict(found)


def _check_count(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise ValueError(f"{where}: {value!r} is not a whole number from 1 to {MAX_COUNT}")


def _check_size(where: str, value: Any) -> None:
    for side in value if isinstance(value, tuple) and len(value) == 2 else (value,):
        _check_count(where, side)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, list):
        return depth > 0 and len(value) <= MAX_LENGTH and all(_is_plain(each, depth - 1) for each in value)
    if isinstance(value, str):
        return len(value) <= MAX_LENGTH
    return value is None or isinstance(value, bool) or (_is_number(value) and abs(value) <= MAX_INTEGER)


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_lists(each) for key, each in value.items()}
    return [_as_lists(each) for each in value] if isinstance(value, list | tuple) else value


def _none_if_not_finite(value: Scalar) -> Scalar:
    return None if isinstance(value, float) and not math.isfinite(value) else value
