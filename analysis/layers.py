"""The entropy of each layer of a compressed network, read from its file (docs/format.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pwfn.errors import UserError
from pwfn.export.layout import Kind, Role
from pwfn.export.reading import read_elements
from pwfn.export.stream import decode


class LayersError(ValueError):
    """The file is not one that this reads; one line says why."""


def layer_entropies(content: bytes) -> list[tuple[str, int, float]]:
    """Measure, in the file's order, each layer whose values are shared: name, weights, entropy in bits per weight.

    Raises:
        LayersError: Not an exported network, of another version, or damaged.
    """
    try:
        found = read_elements(content, decode)
    except UserError as error:
        raise LayersError(str(error)) from error
    return [
        (record.name, record.num_elements, _entropy(elements))
        for record, elements in zip(found.records, found.elements, strict=True)
        if record.role == Role.FIXED and record.coding.kind >= Kind.PALETTE
    ]


def _entropy(elements: Any) -> float:
    """Entropy of a layer's bit patterns."""
    _, counts = np.unique(elements, return_counts=True)
    shares = counts / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum() + 0.0)
