"""Names that are put together and taken apart: dotted fields, places of studies, compacted files.

This module imports nothing of ours, so that a report on a laptop can read it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

COMPACTED = "compacted-"
"""Begins the name of a file that holds many trials."""


def dotted(nested: Mapping[str, Any], depth: int | None = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name the leaves of nested mappings with dots: `{"method": {"b": 7}}` gives `("method.b", 7)`.

    Args:
        nested: the mappings; an empty one inside is a leaf.
        depth: parts that a name has at most; a mapping below is a leaf. None goes down to the last one.
        prefix: what all names begin with.
    """
    for key, value in nested.items():
        if isinstance(value, Mapping) and value and depth != 1:
            yield from dotted(value, None if depth is None else depth - 1, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def place_in(location: str, *names: str) -> str:
    """Join a folder, local or a URI with options behind its `?`, and names below it."""
    path, mark, options = _parted(location)
    return "/".join([path.rstrip("/"), *names]) + mark + options


def parent_of(location: str) -> tuple[str, str]:
    """Part a folder, local or a URI with options, into the folder that it lies in and its own name."""
    path, mark, options = _parted(location)
    parent, _, name = path.rstrip("/").rpartition("/")
    return f"{parent or '.'}{mark}{options}", name


def is_compacted(file: str) -> bool:
    """Whether a file's name says that it holds many trials."""
    return file.startswith(COMPACTED)


def age(file: str) -> tuple[bool, str]:
    """Sort files from the oldest to the newest word on a trial: compacted ones by their time, then single ones."""
    return not is_compacted(file), file


def _parted(location: str) -> tuple[str, str, str]:
    return location.partition("?") if "://" in location else (location, "", "")
