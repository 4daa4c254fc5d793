"""What tells one state of a data set from another, cheaply: no image is decoded."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pwfn.errors import UserError

HEX_DIGITS = 12
MAX_SIZES = 50_000
"""Files whose size is asked for: on a network drive each costs a round trip, and ImageNet has 1.3 million."""
READERS = 16
PARQUET_END = 8
"""Bytes at the end of a Parquet file: the footer's length, then a mark."""


def fingerprint(class_names: Iterable[str], parts: Mapping[str, Any]) -> dict[str, str]:
    """Describe a data set by counts, and digests of its names, labels and images; the keys are words for a message.

    Args:
        class_names: in the order of their numbers.
        parts: the images of each split that serves (`pwfn.data.images.Images`), by the split's role.
    """
    return {
        "class names": digest(name.encode() for name in class_names),
        **{f"number of {name} images": str(len(part)) for name, part in parts.items()},
        **{f"{name} labels": digest([part.labels.numpy().tobytes()]) for name, part in parts.items()},
        **{f"{name} images": part.content() for name, part in parts.items()},
    }


def digest(parts: Iterable[bytes]) -> str:
    """Shorten a sequence of bytes; where one ends and the next begins counts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()[:HEX_DIGITS]


def digest_array(array: Any) -> str:
    """Digest an array of pixels, on the CPU, with its shape."""
    pixels = np.asarray(array)
    return digest([str(pixels.shape).encode(), pixels.tobytes()])


def digest_image_files(paths: Sequence[str], root: str) -> str:
    """Digest the names of files under a folder, and the sizes of at most `MAX_SIZES` of them, evenly spread.

    Raises:
        UserError: a file that is not there, although the set lists it.
    """
    step = -(-len(paths) // MAX_SIZES)
    with ThreadPoolExecutor(READERS) as pool:
        sizes = list(pool.map(_size, paths[:: max(1, step)]))
    below = len(os.path.join(root, ""))  # noqa: PTH118
    names = (os.fsencode(path[below:]) for path in paths)  # a name need not be valid UTF-8
    return digest(itertools.chain(names, (str(size).encode() for size in sizes)))


def digest_parquet_files(paths: Iterable[Path]) -> str:
    """Digest names, sizes and footers, which tell where each column of each row group lies and between what values."""
    return digest(part for path in paths for part in (path.name.encode(), *_size_and_footer(path)))


def digest_file(path: Path) -> str:
    """Digest a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:HEX_DIGITS]


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)  # noqa: PTH202  a million paths are not made into objects first
    except OSError as error:
        raise UserError(f"data.root: {path} cannot be read: {error.strerror}") from error


def _size_and_footer(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        size = file.seek(-PARQUET_END, os.SEEK_END) + PARQUET_END
        length = int.from_bytes(file.read(4), "little") + PARQUET_END
        file.seek(-min(length, size), os.SEEK_END)
        return str(size).encode(), file.read()
