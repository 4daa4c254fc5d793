"""Reads files of format version 1, which pwfn wrote until version 2: one codebook, one table per layer or for all.

It lay in a safetensors file of many tensors: those outside the fixed set under their own names, and five of its own
(codebook, spans of the tables in it, tables, words of the stream, checksum); its description was JSON in the header.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from pwfn.errors import UserError
from pwfn.export.container import malformed
from pwfn.export.elements import Elements, Sizes
from pwfn.export.layout import DTYPES, SIZES, Coding, Kind, Record, Role
from pwfn.export.metadata import ModelMetadata, metadata_from
from pwfn.export.rans import PaletteArray

PREFIX = "pwfn."
SIGMA_PREFIX = "pwfn.sigma."
CHECKSUM = "pwfn.sha256"
CHECKSUM_BYTES = 32
OWN = {"pwfn.codebook": "F32", "pwfn.words": "U32", "pwfn.spans": "U32", "pwfn.tables": "U8"}
WEIGHTS_PER_BYTE = 256
MAX_SYMBOLS = 1 << 18
TOTAL = 1 << 24
PIECE = 1 << 20
LEVELS = np.array([code if code < 16 else (16 + code % 16) << (code // 16 - 1) for code in range(256)], dtype=np.int64)

ByteArray = npt.NDArray[np.uint8]
_Tensor = tuple[Record, PaletteArray]


@dataclass(frozen=True)
class _Layer:
    name: str
    shape: tuple[int, ...]
    table: int | None
    """None where the tensor is stored under its name."""


def read_version1(data: bytes, header: dict[str, Any]) -> Elements:
    """Decode a file.

    Raises:
        UserError: damaged, foreign, of an unknown version or inconsistent.
    """
    _check_checksum(data, header)
    layers, sigmas, metadata = _read_description(header)
    stored = _read_tensors(data, 8 + int.from_bytes(data[:8], "little"), header)
    own = {}
    for name, dtype in OWN.items():
        if name not in stored or stored[name][0].dtype != dtype:
            raise malformed(f"no tensor {name} of type {dtype}")
        record, bits = stored.pop(name)
        own[name] = bits.view(np.float32 if dtype == "F32" else bits.dtype).reshape(record.shape)
    _check_layers([*layers, *sigmas], stored, own, len(data))
    try:
        decoded = _decode([*layers, *sigmas], own)
    except ValueError as error:
        raise malformed(str(error)) from error
    found = [_entry(layer, Role.FIXED, decoded, stored) for layer in layers]
    found += [_entry(layer, Role.SIGMA, decoded, stored) for layer in sigmas]
    names = {layer.name for layer in (*layers, *sigmas)}
    rest = [(record, bits) for record, bits in stored.values() if record.name not in names]
    found += [(_narrowed(record), bits) for record, bits in rest]
    words = own["pwfn.words"].nbytes
    sizes = Sizes(
        file=len(data),
        codebook=sum(array.nbytes for array in own.values()) - words,
        symbols=words,
        stored=sum(stored[layer.name][1].nbytes for layer in layers if layer.table is None),
        rest=sum(bits.nbytes for _, bits in rest),
        sigmas=sum(stored[layer.name][1].nbytes for layer in sigmas if layer.table is None),
    )
    return Elements(1, metadata, [record for record, _ in found], [bits for _, bits in found], lambda: sizes)


def _entry(layer: _Layer, role: Role, decoded: dict[str, Any], stored: dict[str, _Tensor]) -> _Tensor:
    name = layer.name.removeprefix(SIGMA_PREFIX) if role == Role.SIGMA else layer.name
    if layer.table is None:
        record, bits = stored[layer.name]
        return Record(name, role, record.dtype, record.shape, record.coding), bits
    return Record(name, role, "F32", layer.shape, Coding(Kind.PALETTE)), decoded[layer.name].view(np.uint32)


def _narrowed(record: Record) -> Record:
    """Version 1 widened every tensor of half precision."""
    role = Role.NARROWED if record.dtype in ("F16", "BF16") else Role.REST
    return Record(record.name, role, record.dtype, record.shape, record.coding)


def _check_checksum(data: bytes, header: dict[str, Any]) -> None:
    if CHECKSUM not in header:
        raise UserError("not a pwfn file: it has no checksum; only files that pwfn exported can be read")
    if hashlib.sha256(data[:-CHECKSUM_BYTES]).digest() == data[-CHECKSUM_BYTES:]:
        return
    metadata = header.get("__metadata__")
    saved_again = not isinstance(metadata, dict) or "pwfn" not in metadata or list(header)[-1] != CHECKSUM
    if saved_again:
        raise UserError(
            "the file was saved again by another program, which moved its tensors or dropped its metadata: a file of "
            "format version 1 does not survive that; use the file that pwfn wrote, or export again"
        )
    raise UserError("the file is damaged: its bytes do not match its checksum; fetch it again")


def _read_description(header: dict[str, Any]) -> tuple[list[_Layer], list[_Layer], ModelMetadata]:
    metadata = header.pop("__metadata__", None)
    text = metadata.get("pwfn") if isinstance(metadata, dict) else None
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise malformed("the metadata is not JSON") from error
    version = found.get("format_version") if isinstance(found, dict) else None
    if not isinstance(found, dict) or version != 1:
        raise UserError(f"format version {version!r} is unknown; this pwfn reads 1 and 2: upgrade it")
    if unknown := [name for name in found if name not in ("format_version", "layers", "sigmas", "model")]:
        raise malformed(f"metadata {unknown[0]} is unknown")
    try:
        return _layers(found.get("layers")), _layers(found.get("sigmas", [])), metadata_from(found.get("model"))
    except ValueError as error:
        raise malformed(f"metadata {error}") from error


def _layers(found: Any) -> list[_Layer]:
    if not isinstance(found, list):
        raise ValueError("layers: a list is needed")  # noqa: TRY004
    layers = []
    for each in found:
        if not isinstance(each, dict) or set(each) != {"name", "shape", "table"} or not isinstance(each["name"], str):
            raise ValueError("layers: name, shape and table are needed")
        table = each["table"]
        if not (table is None or _is_size(table)) or not _is_shape(each["shape"]):
            raise ValueError(f"layers: the shape or table of {each['name']!r} is wrong")
        layers.append(_Layer(each["name"], tuple(each["shape"]), table))
    return layers


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 48


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(map(_is_size, value))


def _read_tensors(data: bytes, base: int, header: dict[str, Any]) -> dict[str, _Tensor]:
    """Read all tensors, which must fill the data one after the other, the checksum last."""
    for name, entry in header.items():
        right = (
            isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"} and _is_shape(entry["shape"])
        )
        if not right or not _is_shape(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
            raise malformed(f"header entry {name!r}")
    end = 0
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        size = SIZES[DTYPES.index(entry["dtype"])] if entry["dtype"] in DTYPES else 0
        if start != end or not size or prod(entry["shape"]) * size != stop - start or base + stop > len(data):
            raise malformed(f"tensor {name!r}: {entry['dtype']} {entry['shape']} at bytes {start} to {stop}")
        bits = np.frombuffer(bytearray(data[base + start : base + stop]), f"<u{size}")
        tensors[name] = Record(name, Role.REST, entry["dtype"], tuple(entry["shape"]), Coding(Kind.STORED)), bits
        end = stop
    if base + end != len(data) or list(tensors)[-1:] != [CHECKSUM] or len(tensors.pop(CHECKSUM)[1]) != CHECKSUM_BYTES:
        raise malformed("the tensors do not fill the file")
    return tensors


def _check_layers(layers: list[_Layer], tensors: dict[str, _Tensor], own: dict[str, Any], num_bytes: int) -> None:
    spans, tables, codebook = own["pwfn.spans"], own["pwfn.tables"], own["pwfn.codebook"]
    if any(own[name].ndim != 1 for name in OWN if name != "pwfn.spans") or spans.shape[1:] != (2,):
        raise malformed("a tensor of the coder has a wrong shape")
    ends = np.cumsum(spans[:, 1], dtype=np.int64)
    if len(ends) and (ends[-1] != len(tables) or spans.sum(axis=1, dtype=np.int64).max() > len(codebook)):
        raise malformed("the tables do not fit the codebook")
    if len(own["pwfn.words"]) and own["pwfn.words"][-1] == 0:
        raise malformed("the stream of indices ends in a zero word")
    num_weights = sum(prod(layer.shape) for layer in layers)
    if num_weights > WEIGHTS_PER_BYTE * num_bytes:
        raise malformed(f"{num_weights} weights in {num_bytes} bytes, more than {WEIGHTS_PER_BYTE} per byte")
    if len({layer.name for layer in layers}) < len(layers):
        raise malformed("a layer appears twice")
    for layer in layers:
        stored = tensors.get(layer.name)
        if layer.table is None:
            if stored is None or stored[0].shape != layer.shape or stored[0].dtype != "F32":
                raise malformed(f"layer {layer.name!r} has no tensor of its shape")
        elif stored is not None or layer.table >= len(spans):
            raise malformed(f"layer {layer.name!r} has table {layer.table}")


def _frequencies(table: ByteArray) -> npt.NDArray[np.int64]:
    """Expand a table's bytes to frequencies of at least 1 that sum to TOTAL."""
    weights = LEVELS[table]
    if not 0 < len(table) <= MAX_SYMBOLS or not weights.any():
        raise ValueError(f"a table of {len(table)} entries, of which {np.count_nonzero(weights)} are not zero")
    edges = np.concatenate([[0], np.cumsum(weights)])
    return np.asarray(np.diff(edges * (TOTAL - len(table)) // edges[-1]) + 1)


def _decode(layers: list[_Layer], own: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    try:
        import constriction
    except ImportError as error:
        raise UserError(
            f"files of format version 1 need one more package: pip install constriction ({error})"
        ) from error
    spans, tables, codebook, words = (own[f"pwfn.{name}"] for name in ("spans", "tables", "codebook", "words"))
    ends = np.cumsum(spans[:, 1], dtype=np.int64).tolist()
    parts = [tables[end - length : end] for end, length in zip(ends, spans[:, 1].tolist(), strict=True)]
    shares = [_frequencies(table) - 1 for table in parts]
    # constriction gives a symbol of share p the frequency 1 + p (TOTAL - num_symbols), by differences of rounded
    # cumulative sums. Shares that are whole numbers with that very sum come through exactly, on any platform.
    models = [
        None if len(each) == 1 else constriction.stream.model.Categorical(each.astype(np.float64), perfect=False)
        for each in shares
    ]
    coder = constriction.stream.stack.AnsCoder(words) if words.size else constriction.stream.stack.AnsCoder()
    found = {}
    for layer in layers:
        if layer.table is not None:
            first, length = spans[layer.table].tolist()
            values = codebook[first : first + length]
            found[layer.name] = _decode_tensor(coder, models[layer.table], values, prod(layer.shape))
    if not coder.is_empty():
        raise ValueError("the stream of indices does not end where the last tensor does")
    return found


def _decode_tensor(
    coder: Any, model: Any, values: npt.NDArray[np.float32], num_weights: int
) -> npt.NDArray[np.float32]:
    tensor = np.empty(num_weights, dtype=np.float32)
    if model is None:
        tensor[:] = values[0]
        return tensor
    for start in range(0, num_weights, PIECE):
        piece = tensor[start : start + PIECE]
        np.take(values, coder.decode(model, len(piece)), out=piece)
    return tensor
