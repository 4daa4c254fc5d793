"""Which column of a table holds the images and which the labels, and what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data.classes import check_classes, classes_of_names, classes_of_numbers
from pwfn.data.collection import Collection
from pwfn.data.fingerprint import digest, digest_image_files, digest_parquet_files
from pwfn.data.headers import all_grey
from pwfn.data.images import Images
from pwfn.data.pixels import GREY, decode
from pwfn.data.roles import choose_roles
from pwfn.errors import UserError

LABEL_NAMES = ("label", "labels", "fine_label", "cls", "class", "target", "category")
"""Names of label columns where the type does not say it."""
KEY = "__key__"
"""Column in which `datasets` keeps the name of a WebDataset's sample."""
SMALL_SIDE = 96
"""Images of at most so many pixels a side are held in memory where nothing else is said."""
SMALL_BYTES = 2**30
"""Decoded size up to which a set is small."""


@dataclass(frozen=True)
class Columns:
    """Names of the two columns."""

    image: str
    label: str


@dataclass(frozen=True)
class Split:
    """A split as `datasets` gives it."""

    table: Any
    """`datasets.Dataset`."""
    files: tuple[str, ...]
    """What it was made from, in the order of its rows; paths or addresses."""
    labels_are_folders: bool = False
    """Whether `datasets` numbered the labels itself, by the names of folders in lexical order."""


class TableImages(Images):
    """Images in a table of `datasets`, mapped from its Arrow file."""

    def __init__(self, name: str, labels: Tensor, split: Split, column: str) -> None:
        super().__init__(name, labels)
        self.split = split
        self.column = column

    def __getstate__(self) -> dict[str, Any]:
        """Leave the column out of pickles: it would travel whole; the table travels as the path of its file."""
        return {name: value for name, value in vars(self).items() if name != "cells"}

    @cached_property
    def cells(self) -> Any:
        """The images' column, an Arrow array in chunks."""
        return self.split.table.data.column(self.column)

    def picture(self, row: int) -> Image.Image:
        """Decode one cell: bytes, bytes or a path in a record, or an array of pixels."""
        cell = self.cells[row].as_py()
        if isinstance(cell, Mapping):
            cell = cell["bytes"] if cell.get("bytes") is not None else _read(cell.get("path"))
        if isinstance(cell, bytes):
            return decode(cell)
        return _from_array(cell)

    def where(self, row: int) -> str:
        """Name the Parquet file and the row in it, or the sample in a tar file, or the split and the row."""
        if KEY in self.split.table.column_names:
            return f"{self.name}, sample {self.split.table.data.column(KEY)[row].as_py()}"
        left = row
        for path in self.split.files if self._is_local_parquet else ():
            rows = pq.read_metadata(path).num_rows
            if left < rows:
                return f"{path}, row {left}"
            left -= rows
        return f"{self.name}, row {row}"

    def content(self) -> str:
        """Digest the files it was made from where they are here, else what `datasets` knows the table by."""
        if self._is_local_parquet:
            return digest_parquet_files(map(Path, self.split.files))
        if self.split.files and not any("://" in path for path in self.split.files):
            return digest_image_files(self.split.files, str(Path(self.split.files[0]).parent))
        return digest([str(self.split.table._fingerprint).encode()])

    @property
    def _is_local_parquet(self) -> bool:
        files = self.split.files
        return bool(files) and all("://" not in path and path.endswith(".parquet") for path in files)


def choose_columns(config: DataConfig, splits: Mapping[str, Split], where: str) -> Columns:
    """Find the columns by the configuration's fields, else by their types and names.

    Raises:
        UserError: none that fits, or several.
    """
    features = next(iter(splits.values())).table.features
    images = [name for name, feature in features.items() if _holds_images(feature)]
    image = _choose(config.image_column, images, "image", features, where)
    if not _holds_images(features[image]):
        raise UserError(
            f"data.image_column: {where}: {image} is {_kind(features[image])}; images are bytes, records with bytes or "
            "a path, or rows of pixels"
        )
    named = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    plain = [
        name for name, feature in features.items() if name != image and not name.startswith("__") and _is_label(feature)
    ]
    labels = named or [name for name in plain if name.lower() in LABEL_NAMES] or plain
    label = _choose(config.label_column, labels, "label", features, where)
    return Columns(image, label)


def read_collection(config: DataConfig, splits: Mapping[str, Split], where: str, columns: Columns) -> Collection:
    """Read all labels, and give each split its role; splits without labels are left out."""
    raw = {name: _raw_labels(split, columns.label, f"{where}, split {name}") for name, split in splits.items()}
    unlabelled = [name for name, values in raw.items() if _has_no_labels(values)]
    hint = "".join(f"; the split {name} has no labels" for name in unlabelled)
    roles = choose_roles(config, [name for name in splits if name not in unlabelled], where, hint=hint)
    feature = splits[roles.train].table.features[columns.label]
    classes, labels = _to_numbers({name: raw[name] for name in roles.used}, feature, config, where)
    parts = {
        name: TableImages(f"{where}, split {name}", labels[name], splits[name], columns.image) for name in roles.used
    }
    check_classes(classes, labels[roles.train], where)
    is_small = _is_small(parts[roles.train], sum(map(len, parts.values())))
    notes = [f"images from column {columns.image}, labels from column {columns.label}"]
    notes += [f"the split {name} has no labels and is left out" for name in unlabelled]
    grey = is_small and all(all_grey(part.cells) for part in parts.values())
    return Collection(
        f"{where} (read by datasets)", roles, parts, classes, channels=1 if grey else 3, is_small=is_small,
        notes=tuple(notes),
    )  # fmt: skip


def recorded_names(schema: Any) -> dict[str, list[str]]:
    """Return the class names that `datasets` records in an Arrow schema, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if "names" in kind}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _choose(named: str | None, candidates: Sequence[str], what: str, features: Any, where: str) -> str:
    columns = ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
    if named is not None:
        if named not in features:
            raise UserError(f"data.{what}_column: {where} has no column {named!r}; its columns are {columns}")
        return named
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UserError(f"data.{what}_column: {where} has {' and '.join(candidates)}; name the one that is meant")
    raise UserError(f"{where}: no column of {what}s; its columns are {columns}; name one in data.{what}_column")


def _kind(feature: Any) -> str:
    return (
        str(getattr(feature, "dtype", type(feature).__name__))
        if type(feature).__name__ == "Value"
        else type(feature).__name__
    )


def _holds_images(feature: Any) -> bool:
    kind = type(feature).__name__
    if kind == "Value":
        return str(feature.dtype) in ("binary", "large_binary")
    if isinstance(feature, dict):
        return "bytes" in feature
    return kind in ("Image", "Array2D", "Array3D") or (kind in ("List", "LargeList") and _holds_rows(feature))


def _holds_rows(feature: Any) -> bool:
    inner = feature.feature
    return type(inner).__name__ in ("List", "LargeList")


def _is_label(feature: Any) -> bool:
    if type(feature).__name__ != "Value":
        return False
    dtype = str(feature.dtype)
    return dtype.startswith(("int", "uint", "string", "large_string", "bool"))


def _raw_labels(split: Split, column: str, where: str) -> Any:
    """Return the labels as they are: a numpy array of integers, of flags, or of text."""
    table = split.table
    cells = table.data.column(column)
    if getattr(table, "_indices", None) is not None:
        cells = table.flatten_indices().data.column(column)
    if len(cells) == 0:
        raise UserError(f"{where}: holds no rows")
    if cells.null_count:
        raise UserError(f"{where}: {cells.null_count} rows have no {column}")
    values = cells.to_numpy()
    names = getattr(table.features[column], "names", None)
    if split.labels_are_folders and names:
        return np.array(names)[values]
    if values.dtype.kind in "iub":
        return values
    if values.dtype.kind in "OUT" and isinstance(values[0], str):
        return values
    raise UserError(f"data.label_column: {where}: {column} is {cells.type}; labels are integers, text or yes/no")


def _has_no_labels(values: Any) -> bool:
    return bool(values.dtype.kind == "i" and (values == -1).all())


def _to_numbers(raw: Mapping[str, Any], feature: Any, config: DataConfig, where: str) -> tuple[Any, dict[str, Tensor]]:
    """Turn labels of any kind into numbers, and say which classes they are."""
    first = next(iter(raw.values()))
    if first.dtype.kind in "iub":
        names = list(feature.names) if hasattr(feature, "names") else None
        if first.dtype.kind == "b":
            names = ["False", "True"]
        tensors = {name: torch.from_numpy(values.astype(np.int64)) for name, values in raw.items()}
        classes, numbers = classes_of_numbers(torch.cat(list(tensors.values())), names, config, where)
        return classes, {name: numbers[labels] for name, labels in tensors.items()}
    distinct = {name: np.unique(values.astype(str), return_inverse=True) for name, values in raw.items()}
    classes = classes_of_names({str(text) for found, _ in distinct.values() for text in found}, config, where)
    return classes, {
        name: torch.tensor([classes.number[str(text)] for text in found])[torch.from_numpy(inverse)]
        for name, (found, inverse) in distinct.items()
    }


def _is_small(images: TableImages, num_images: int) -> bool:
    """Judge by the first image; the others are looked at when they are decoded."""
    try:
        first = images.picture(0)
    except Exception:  # a broken one is named when it is drawn, or by --check-data
        return False
    channels = 1 if first.mode in GREY else 3
    return max(first.size) <= SMALL_SIDE and num_images * first.width * first.height * channels <= SMALL_BYTES


def _read(path: str | None) -> bytes:
    if path is None:
        raise FileNotFoundError("neither bytes nor a path")
    return Path(path).read_bytes()


def _from_array(cell: Any) -> Image.Image:
    """Make an image of rows of pixels: `(height, width)`, `(height, width, channels)` or channels first, 0..255."""
    pixels = np.asarray(cell)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"pixels of {pixels.dtype}, not whole numbers in 0..255")
    return Image.fromarray(pixels.squeeze(-1).astype(np.uint8) if pixels.shape[-1] == 1 else pixels.astype(np.uint8))
