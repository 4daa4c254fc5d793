"""Parquet files in Hugging Face's image layout, decoded into memory.

`train.parquet` and `test.parquet` (or shards `train-*.parquet`, `test-*.parquet`) hold an image column
`struct{bytes, path}` called `img` or `image`, and an integer column `label`; class names are in the schema's metadata.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data.fingerprint import digest_parquet_files
from pwfn.data.memory import ImageSet, MemorySource
from pwfn.errors import UserError, first_line

log = logging.getLogger(__name__)

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMN = "label"
PILLOW_MODES = {1: ("L", "1", "LA"), 3: ("RGB", "RGBA", "P", "CMYK", "YCbCr")}
"""Pillow's pixel formats of 8 bits, by the channels they are decoded to; the first is the one decoded to."""
SECONDS_BETWEEN_REPORTS = 5.0


@dataclass(frozen=True)
class ImageFile:
    """One Parquet file and what its schema tells."""

    path: Path
    num_rows: int
    image_column: str
    class_names: tuple[str, ...] | None


def open_parquet(config: DataConfig, root: Path, seed: int) -> MemorySource:
    """Open the training and test files of a folder; images are decoded when the source is prepared."""
    pool_files, test_files = _open_part(root, "train"), _open_part(root, "test")
    pool_labels, test_labels = _read_labels(pool_files), _read_labels(test_files)
    names = _common_class_names((*pool_files, *test_files))
    if names is None:
        num_classes = 1 + int(torch.cat([pool_labels, test_labels]).max())
        names = tuple(str(label) for label in range(num_classes))
    _check_labels(pool_files, pool_labels, len(names))
    _check_labels(test_files, test_labels, len(names))
    return MemorySource(
        config, _image_set(pool_files, pool_labels), _image_set(test_files, test_labels), class_names=names, seed=seed
    )


def _open_part(root: Path, part: str) -> tuple[ImageFile, ...]:
    whole = root / f"{part}.parquet"
    paths = [whole] if whole.exists() else sorted(root.glob(f"{part}-*.parquet"))
    if not paths:
        raise UserError(f"data.root: {root} has neither {part}.parquet nor {part}-*.parquet")
    files = tuple(_open_file(path) for path in paths)
    if not sum(file.num_rows for file in files):
        raise UserError(f"{whole}: holds no rows")
    return files


def _open_file(path: Path) -> ImageFile:
    try:
        with pq.ParquetFile(path) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {first_line(error)}") from error
    images = [name for name in IMAGE_COLUMNS if name in schema.names and _holds_images(schema.field(name).type)]
    if not images:
        allowed = " or ".join(IMAGE_COLUMNS)
        raise UserError(f"{path}: no column {allowed} of struct{{bytes, path}}; its columns are {_columns(schema)}")
    if LABEL_COLUMN not in schema.names or not pa.types.is_integer(schema.field(LABEL_COLUMN).type):
        raise UserError(f"{path}: no column {LABEL_COLUMN} of integers; its columns are {_columns(schema)}")
    return ImageFile(path, num_rows, images[0], _class_names(schema))


def _holds_images(kind: Any) -> bool:
    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _class_names(schema: Any) -> tuple[str, ...] | None:
    """Return the names that Hugging Face's `datasets` writes beside a ClassLabel, or None."""
    try:
        record = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in record["info"]["features"][LABEL_COLUMN]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _common_class_names(files: tuple[ImageFile, ...]) -> tuple[str, ...] | None:
    first = files[0]
    for file in files:
        if file.class_names != first.class_names:
            names = f"{file.class_names} instead of {first.class_names} as in {first.path.name}"
            raise UserError(f"{file.path}: the schema's metadata names the classes {names}; labels would not agree")
    return first.class_names


def _read_labels(files: tuple[ImageFile, ...]) -> Tensor:
    columns = []
    for file in files:
        try:
            column = pq.read_table(file.path, columns=[LABEL_COLUMN], partitioning=None)[LABEL_COLUMN]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file.path}: not a readable Parquet file: {first_line(error)}") from error
        if column.null_count:
            raise UserError(f"{file.path}: {column.null_count} rows have no {LABEL_COLUMN}")
        columns.append(column.to_numpy().astype(np.int64))
    return torch.from_numpy(np.concatenate(columns))


def _check_labels(files: tuple[ImageFile, ...], labels: Tensor, num_classes: int) -> None:
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(wrong.int().argmax())
        where = _where(files, row)
        raise UserError(f"{where}: label {int(labels[row])} is outside 0..{num_classes - 1} ({num_classes} classes)")


def _where(files: tuple[ImageFile, ...], row: int) -> str:
    for file in files:
        if row < file.num_rows:
            return f"{file.path}, row {row}"
        row -= file.num_rows
    raise AssertionError("the row lies in one of the files")


def _image_set(files: tuple[ImageFile, ...], labels: Tensor) -> ImageSet:
    _, [content] = next(_read_chunks(files, np.zeros(1, np.int64)))
    where = _where(files, 0)
    image = _decode(content, where)
    shape = (_num_channels(image, where), image.height, image.width)
    return ImageSet(
        str(files[0].path),
        labels,
        shape,
        read=lambda rows: _read_images(files, shape, rows),
        content=lambda: digest_parquet_files(file.path for file in files),
    )


def _read_images(files: tuple[ImageFile, ...], shape: tuple[int, int, int], rows: Tensor) -> Tensor:
    """Decode rows, increasing, to uint8 `(rows, channels, height, width)`."""
    pixels = np.empty((len(rows), *shape), np.uint8)
    progress = _Progress(str(files[0].path), len(rows))
    done = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for numbers, contents in _read_chunks(files, rows.numpy()):
            where = [_where(files, int(row)) for row in numbers]
            decoded = threads.map(_decode_pixels, contents, where, repeat(shape))
            for place, image in zip(pixels[done : done + len(where)], decoded, strict=True):
                place[...] = image
            done += len(where)
            progress.report(done)
    return torch.from_numpy(pixels)


def _read_chunks(
    files: tuple[ImageFile, ...], rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], list[bytes | None]]]:
    """Yield the wanted rows and their images' bytes, one row group of the files at a time."""
    first = 0
    for file in files:
        try:
            with pq.ParquetFile(file.path) as table:
                for group in range(table.num_row_groups):
                    after = first + table.metadata.row_group(group).num_rows
                    wanted = rows[(rows >= first) & (rows < after)]
                    if len(wanted):
                        column = table.read_row_group(group, columns=[file.image_column])[file.image_column]
                        images = column.take(pa.array(wanted - first)).to_pylist()
                        yield wanted, [image and image["bytes"] for image in images]
                    first = after
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file.path}: not a readable Parquet file: {first_line(error)}") from error


def _decode_pixels(content: bytes | None, where: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    channels, height, width = shape
    image = _decode(content, where)
    if image.size != (width, height):
        found = f"{image.width}x{image.height}"
        raise UserError(f"{where}: {found} pixels, but others {width}x{height}; use data.name=imagefolder for them")
    if channels < _num_channels(image, where):
        raise UserError(f"{where}: a colour image among grey ones")
    mode = PILLOW_MODES[channels][0]
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _decode(content: bytes | None, where: str) -> Image.Image:
    if content is None:
        raise UserError(f"{where}: the image's bytes are missing; only images embedded in the file are read")
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        raise UserError(f"{where}: not a readable image ({len(content)} bytes): {type(error).__name__}") from error
    return image


def _num_channels(image: Image.Image, where: str) -> int:
    for channels, modes in PILLOW_MODES.items():
        if image.mode in modes:
            return channels
    raise UserError(f"{where}: an image of Pillow's mode {image.mode}; only 8-bit grey and colour images can be read")


class _Progress:
    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.begun = self.reported = time.monotonic()

    def report(self, done: int) -> None:
        now = time.monotonic()
        if done == self.total or now - self.reported >= SECONDS_BETWEEN_REPORTS:
            log.info("%s: %d of %d images decoded, %.1f s", self.name, done, self.total, now - self.begun)
            self.reported = now
