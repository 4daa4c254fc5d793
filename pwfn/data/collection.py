"""What a reader found: the images of each split, and what their labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pwfn.data.classes import Classes
from pwfn.data.images import Images
from pwfn.data.roles import Roles


@dataclass(frozen=True)
class Collection:
    """A data set that was opened; no image is decoded."""

    name: str
    """What was read, in words: `image files under /data/pets`."""
    roles: Roles
    parts: Mapping[str, Images]
    """The splits that have a role, by their own names."""
    classes: Classes
    channels: int = 3
    """1 for grey images, 3 for colour."""
    is_small: bool = False
    """Whether the images are few and small, so that they are held in memory where nothing else is said."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """What was left out and why, in words -> how many."""
    notes: tuple[str, ...] = ()
    """What was guessed or is worth knowing, in words."""
