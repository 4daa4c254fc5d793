"""Names, and the functions that build and read them: of points, fields, folders of studies, compacted files, numbers.

A point is a whole network that a trial makes, with its own row and file. Most trials make one. A trial that trains in
stages makes one in each stage: the last has the trial's own name, earlier ones have names such as `0007-s0`. Fronts,
reports and exports work with points.

This module imports nothing of ours, so that a report can use it on a laptop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

COMPACTED = "compacted-"
"""The beginning of the name of a file that holds many trials."""

BASELINE = "baseline"
"""The key that marks a proposal outside the search; its entry is the configuration of the method."""
_POINT = re.compile(r"(?P<trial>.+?)(?:-r(?P<replicate>\d+))?(?:-s(?P<stage>\d+))?")


class PointName(NamedTuple):
    """The parts of a point's name: `0007-r2-s0` is stage 0 of the second replicate of trial 0007."""

    of_trial: str
    """Name of the trial that was proposed."""
    replicate: int = 0
    """Number of the replicate, which has its own seed, counted from 1; 0 is the trial itself."""
    stage: int | None = None
    """Number of the stage, counted from 0; None is the last stage, the trial's own result."""

    @classmethod
    def read(cls, name: str) -> PointName:
        """Read the name of a point, which must not be empty."""
        found = _POINT.fullmatch(name)
        assert found is not None, "any text with something in it is a name"
        stage = found["stage"]
        return cls(found["trial"], int(found["replicate"] or 0), None if stage is None else int(stage))

    @property
    def run(self) -> str:
        """Name of the run that made the point: a trial or one of its replicates."""
        return f"{self.of_trial}-r{self.replicate}" if self.replicate else self.of_trial

    def __str__(self) -> str:
        return self.run if self.stage is None else f"{self.run}-s{self.stage}"


def is_trial(name: str) -> bool:
    """Whether the name of a row is that of a trial or replicate, not of one of its earlier stages."""
    return PointName.read(name).stage is None


def dotted(nested: Mapping[str, Any], depth: int | None = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each leaf of nested mappings.

    `{"method": {"b": 7}}` gives `("method.b", 7)`.

    Args:
        nested: the mappings; an empty mapping inside them is a leaf.
        depth: largest number of parts of a name; a mapping at that depth is a leaf. None: no limit.
        prefix: the beginning of all names.
    """
    for key, value in nested.items():
        if isinstance(value, Mapping) and value and depth != 1:
            yield from dotted(value, None if depth is None else depth - 1, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def counted(number: int, what: str) -> str:
    """Name a number of things, whose plural has an s: `1 trial`, `2 trials`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def place_in(location: str, *names: str) -> str:
    """Join a folder and names below it. The folder is local or a URI, whose options after a `?` stay at the end."""
    path, mark, options = _parted(location)
    return "/".join([path.rstrip("/"), *names]) + mark + options


def parent_of(location: str) -> tuple[str, str]:
    """Split a folder into its parent folder and its own name. It is local or a URI, whose options the parent keeps."""
    path, mark, options = _parted(location)
    parent, _, name = path.rstrip("/").rpartition("/")
    return f"{parent or '.'}{mark}{options}", name


def is_compacted(file: str) -> bool:
    """Whether a file, by its name, holds many trials."""
    return file.startswith(COMPACTED)


def age(file: str) -> tuple[bool, str]:
    """Sort key for the names of files with rows of trials, from the oldest to the newest rows.

    Compacted files come first, by their time, then files of single trials.
    """
    return not is_compacted(file), file


def _parted(location: str) -> tuple[str, str, str]:
    return location.partition("?") if "://" in location else (location, "", "")
