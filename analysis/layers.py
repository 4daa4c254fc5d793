"""The entropy of each layer of a compressed network, read from its file (docs/format.md)."""

from __future__ import annotations

import hashlib
import json
import struct
from math import prod
from typing import Any

import constriction
import numpy as np
import safetensors.numpy

from analysis.metrics import Array

FORMAT_VERSION = 1
_TOTAL = 1 << 24


class LayersError(ValueError):
    """The file is not one that this reads; one line says why."""


def layer_entropies(content: bytes) -> list[tuple[str, int, float]]:
    """Measure, in coding order, each coded layer: name, number of weights, entropy of its values in bits per weight.

    Raises:
        LayersError: Not an exported network, of another version, or damaged.
    """
    if hashlib.sha256(content[:-32]).digest() != content[-32:]:
        raise LayersError("it is damaged, or not an exported network")
    try:
        metadata = _metadata(content)
        tensors = safetensors.numpy.load(content)
        own = {name: tensors[f"pwfn.{name}"] for name in ("spans", "tables", "words")}
        return _decode(metadata["layers"], own)
    except (KeyError, IndexError, ValueError, TypeError, AssertionError, safetensors.SafetensorError) as error:
        raise LayersError(" ".join(str(error).split()) or type(error).__name__) from error


def _metadata(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    metadata: dict[str, Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["pwfn"])
    if metadata["format_version"] != FORMAT_VERSION:
        raise LayersError(f"format version {metadata['format_version']}, and this report knows {FORMAT_VERSION}")
    return metadata


def _decode(layers: list[dict[str, Any]], own: dict[str, Any]) -> list[tuple[str, int, float]]:
    ends = np.cumsum(own["spans"][:, 1], dtype=np.int64)
    tables = [own["tables"][end - length : end] for end, length in zip(ends, own["spans"][:, 1], strict=True)]
    coder = constriction.stream.stack.AnsCoder(own["words"]) if own["words"].size else None
    rows = []
    for layer in layers:
        if layer["table"] is None:
            continue
        table, num_weights = tables[layer["table"]], prod(layer["shape"])
        if len(table) == 1 or coder is None:  # a single symbol takes no bits
            rows.append((str(layer["name"]), num_weights, 0.0))
            continue
        model = constriction.stream.model.Categorical(_shares(table), perfect=False)
        counts = np.bincount(coder.decode(model, num_weights), minlength=len(table))
        rows.append((str(layer["name"]), num_weights, _entropy(counts)))
    return rows


def _shares(table: Any) -> Array:
    """Expand a table's bytes to whole numbers that constriction turns into the frequencies of docs/format.md."""
    small = table.astype(np.int64)
    weights = np.where(small < 16, small, (16 + small % 16) << np.maximum(small // 16 - 1, 0))
    edges = np.concatenate([[0], np.cumsum(weights)])
    shares: Array = np.diff(edges * (_TOTAL - len(table)) // edges[-1]).astype(np.float64)
    return shares


def _entropy(counts: Any) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
