"""Names that are put together and taken apart: points, dotted fields, places of studies, compacted files.

A point is a whole network that a trial leaves, with a row and a file of its own. Most trials leave one. A trial that
trains in stages leaves one for each stage: the last under the trial's own name, earlier ones under names such as
`0007-s0`. Everything downstream speaks of points: fronts, reports, exports.

This module imports nothing of ours, so that a report on a laptop can read it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

COMPACTED = "compacted-"
"""Begins the name of a file that holds many trials."""


BASELINE = "baseline"
"""Marks a proposal that runs beside the search; its entry is the method's configuration."""
_POINT = re.compile(r"(?P<trial>.+?)(?:-r(?P<replicate>\d+))?(?:-s(?P<stage>\d+))?")


class PointName(NamedTuple):
    """What the name of a point says: `0007-r2-s0` is stage 0 of the second replicate of trial 0007."""

    of_trial: str
    """The trial that was proposed."""
    replicate: int = 0
    """Which of its seeds: 0 is the trial itself, replicates count from 1."""
    stage: int | None = None
    """Which of its stages; None is the last one, which is the trial's own result."""

    @classmethod
    def read(cls, name: str) -> PointName:
        """Take a name apart."""
        found = _POINT.fullmatch(name)
        assert found is not None, "any text with something in it is a name"
        stage = found["stage"]
        return cls(found["trial"], int(found["replicate"] or 0), None if stage is None else int(stage))

    @property
    def run(self) -> str:
        """The name of the run that left the point: a trial, or one of its replicates."""
        return f"{self.of_trial}-r{self.replicate}" if self.replicate else self.of_trial

    def __str__(self) -> str:
        return self.run if self.stage is None else f"{self.run}-s{self.stage}"


def is_trial(name: str) -> bool:
    """Whether a row's name is that of a trial, or a replicate, and not of one of its earlier stages."""
    return PointName.read(name).stage is None


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
