"""What is read of a file: its tensors as bit patterns, and how many of its bytes hold what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pwfn.export.layout import Record
from pwfn.export.metadata import ModelMetadata


@dataclass(frozen=True)
class Sizes:
    """Bytes of a file by what they hold."""

    file: int
    codebook: int
    """Palettes, tables and contexts."""
    symbols: int
    """Coded symbols of the fixed set and its sigmas."""
    stored: int
    """Tensors of the fixed set whose values are not shared."""
    rest: int
    """Tensors outside the fixed set."""
    sigmas: int
    """Sigmas whose values are not shared."""


@dataclass(frozen=True)
class Elements:
    """What a file holds, decoded: `elements` are flat bit patterns, an array or tensor per record."""

    version: int
    metadata: ModelMetadata
    records: Sequence[Record]
    elements: Sequence[Any]
    measure: Callable[[], Sizes]
    """Counts the file's bytes."""
