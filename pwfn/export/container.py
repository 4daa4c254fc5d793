"""The file: a safetensors file with one JSON text in its header and a checksum at its end (`docs/format.md`).

Reading trusts nothing. The checksum is compared first; then every size is checked against the bytes that are really
there before anything is allocated for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from pwfn.errors import UserError
from pwfn.export.codec import CodedTensors, decode, frequencies
from pwfn.export.metadata import ModelMetadata

FORMAT_VERSION = 1
PREFIX = "pwfn."
"""Begins the names of our own tensors."""
CODED = {"pwfn.codebook": "F32", "pwfn.words": "U32", "pwfn.spans": "U32", "pwfn.tables": "U8"}
"""Our own tensors beside the untouched ones, and their types."""
CHECKSUM = "pwfn.sha256"
CHECKSUM_BYTES = 32
WEIGHTS_PER_BYTE = 256
"""A file of n bytes holds at most so many times n weights: what a hostile file can make a reader allocate."""
DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64,
    "F32": torch.float32, "I32": torch.int32, "U32": torch.uint32,
    "F16": torch.float16, "BF16": torch.bfloat16, "I16": torch.int16, "U16": torch.uint16,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""safetensors' types, in the order in which the file holds them, so that all are aligned."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}

Size = Annotated[int, Field(ge=0, le=1 << 48)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Layer(_Strict):
    """A tensor of the fixed set: coded, or stored as it is where coding does not pay."""

    name: str
    shape: Annotated[list[Size], Field(max_length=16)]
    table: Annotated[int, Field(ge=0)] | None
    """Frequency table; None where the tensor is stored under its name."""


class Description(BaseModel):
    """The JSON text of the header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    layers: tuple[Layer, ...]
    """The fixed set, in coding order."""
    sigmas: tuple[Layer, ...] = ()
    """The posterior's sigma of each layer, after them in coding order, or none."""
    model: ModelMetadata

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """Whatever may be coded, in coding order."""
        return self.layers + self.sigmas

    @property
    def num_decoded(self) -> int:
        """Weights and sigmas that a reader has to make room for."""
        return sum(prod(layer.shape) for layer in self.all_layers)


class _Entry(_Strict):
    dtype: str
    shape: Annotated[list[Size], Field(max_length=16)]
    data_offsets: Annotated[list[Size], Field(min_length=2, max_length=2)]


_ENTRIES = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True)
class Contents:
    """A file's contents: layers are in `coded` and `untouched`, everything else in `untouched`."""

    description: Description
    coded: CodedTensors
    untouched: dict[str, Tensor]

    def decode(self) -> dict[str, Tensor]:
        """Decode the fixed set, and the sigmas if there are any, in coding order.

        Raises:
            UserError: the stream of indices is not valid.
        """
        layers = self.description.all_layers
        try:
            decoded = decode(self.coded, {layer.name: layer.shape for layer in layers})
        except ValueError as error:
            raise _malformed(str(error)) from error
        coded = {name: torch.from_numpy(array) for name, array in decoded.items()}
        stored = {layer.name: self.untouched[layer.name] for layer in layers if layer.table is None}
        return {layer.name: (stored if layer.table is None else coded)[layer.name] for layer in layers}


def pack(contents: Contents) -> bytes:
    """Write a file; the same contents give the same bytes.

    Raises:
        UserError: a tensor of a type that safetensors does not have.
    """
    coded = contents.coded
    ours = dict(zip(CODED, (coded.codebook, coded.words, coded.spans, coded.tables), strict=True))
    tensors = {name: torch.from_numpy(array) for name, array in ours.items()} | contents.untouched
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise UserError(f"tensor {name} is {tensor.dtype}, which safetensors files do not have")
    rank = {dtype: place for place, dtype in enumerate(DTYPES.values())}
    ordered = dict(sorted(tensors.items(), key=lambda item: rank[item[1].dtype]))
    header = _header(contents.description, ordered)
    body = b"".join([len(header).to_bytes(8, "little"), header, *map(_to_bytes, ordered.values())])
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes) -> Contents:
    """Read a file without decoding its weights.

    Raises:
        UserError: damaged, foreign, of an unknown version or inconsistent.
    """
    text = _check_frame(data)
    header = _parse(text)
    description = _read_description(header)
    views = _locate(header, len(data) - 8 - len(text))
    tensors = {name: _from_bytes(data, 8 + len(text), entry) for name, entry in views.items() if name != CHECKSUM}
    for name, dtype in CODED.items():
        if name not in views or views[name].dtype != dtype:
            raise _malformed(f"no tensor {name} of type {dtype}")
    codebook, words, spans, tables = (tensors.pop(name).numpy() for name in CODED)
    coded = CodedTensors(
        codebook=codebook,
        tables=tables,
        spans=spans,
        words=words,
        table_of={layer.name: layer.table for layer in description.all_layers if layer.table is not None},
    )
    contents = Contents(description, coded, tensors)
    _check_layers(contents, len(data))
    _check_tables(coded)
    return contents


def _header(description: Description, tensors: Mapping[str, Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"pwfn": description.model_dump_json()}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    entries[CHECKSUM] = {"dtype": "U8", "shape": [CHECKSUM_BYTES], "data_offsets": [end, end + CHECKSUM_BYTES]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    size = max(len(text), description.num_decoded // WEIGHTS_PER_BYTE)  # so that a network of one value can be read
    return text.ljust(-(-size // 8) * 8)


def _to_bytes(tensor: Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)  # a copy: bytes need a stride of 1, empty tensors included
    return flat.copy_(tensor.detach().reshape(-1)).view(torch.uint8).numpy().tobytes()


def _from_bytes(data: bytes, base: int, entry: _Entry) -> Tensor:
    start, stop = entry.data_offsets
    if start == stop:
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    return torch.frombuffer(bytearray(data[base + start : base + stop]), dtype=DTYPES[entry.dtype]).reshape(entry.shape)


def _check_frame(data: bytes) -> bytes:
    """Compare length and checksum; return the header's text."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 + CHECKSUM_BYTES or size > len(data) - 8 - CHECKSUM_BYTES:
        raise UserError(f"not a whole pwfn file: {len(data)} bytes, too few for a header of {size}; was it truncated?")
    if hashlib.sha256(memoryview(data)[:-CHECKSUM_BYTES]).digest() == data[-CHECKSUM_BYTES:]:
        return data[8 : 8 + size]
    if CHECKSUM.encode() in data[8 : 8 + size]:
        raise UserError("the file is damaged: its bytes do not match its checksum; fetch it again")
    raise UserError("not a pwfn file: it has no checksum; only files that pwfn exported can be read")


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed("the header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise _malformed("the header has no __metadata__")
    return header


def _read_description(header: dict[str, Any]) -> Description:
    text = header.pop("__metadata__").get("pwfn")
    try:
        found = json.loads(text) if isinstance(text, str) else None
        version = found.get("format_version") if isinstance(found, dict) else None
        if version != FORMAT_VERSION:
            raise UserError(f"format version {version!r} is unknown; this pwfn reads {FORMAT_VERSION}: upgrade it")
        return Description.model_validate_json(str(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _malformed(f"metadata {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _malformed("the metadata is not JSON") from error


def _locate(header: dict[str, Any], num_bytes: int) -> dict[str, _Entry]:
    """Check that the tensors fill the data exactly, one after the other, the checksum last."""
    try:
        entries = _ENTRIES.validate_python(header)
    except ValidationError as error:
        raise _malformed(f"header entry {error.errors()[0]['loc'][0]!r}") from error
    ordered = dict(sorted(entries.items(), key=lambda item: item[1].data_offsets))
    end = 0
    for name, entry in ordered.items():
        start, stop = entry.data_offsets
        dtype = DTYPES.get(entry.dtype)
        if start != end or dtype is None or prod(entry.shape) * dtype.itemsize != stop - start:
            raise _malformed(f"tensor {name!r}: {entry.dtype} {entry.shape} at bytes {start} to {stop}")
        end = stop
    if end != num_bytes or list(ordered)[-1:] != [CHECKSUM] or ordered[CHECKSUM].shape != [CHECKSUM_BYTES]:
        raise _malformed("the tensors do not fill the file")
    return ordered


def _check_layers(contents: Contents, num_bytes: int) -> None:
    layers = contents.description.all_layers
    num_decoded = contents.description.num_decoded
    if num_decoded > WEIGHTS_PER_BYTE * num_bytes:
        raise _malformed(f"{num_decoded} weights in {num_bytes} bytes, more than {WEIGHTS_PER_BYTE} per byte")
    if len({layer.name for layer in layers}) < len(layers):
        raise _malformed("a layer appears twice")
    for layer in layers:
        stored = contents.untouched.get(layer.name)
        if layer.table is None:
            if stored is None or list(stored.shape) != layer.shape or stored.dtype != torch.float32:
                raise _malformed(f"layer {layer.name!r} has no tensor of its shape")
        elif stored is not None or layer.table >= len(contents.coded.spans):
            raise _malformed(f"layer {layer.name!r} has table {layer.table}")


def _check_tables(coded: CodedTensors) -> None:
    spans = coded.spans
    if coded.codebook.ndim != 1 or coded.words.ndim != 1 or coded.tables.ndim != 1 or spans.shape[1:] != (2,):
        raise _malformed("a tensor of the coder has a wrong shape")
    if coded.words.size and coded.words[-1] == 0:
        raise _malformed("the stream of indices ends in a zero word")
    ends = np.cumsum(spans[:, 1], dtype=np.int64)
    if len(ends) and (ends[-1] != len(coded.tables) or spans.sum(axis=1, dtype=np.int64).max() > len(coded.codebook)):
        raise _malformed("the tables do not fit the codebook")
    _check_each_table(coded.tables, ends.tolist())


def _check_each_table(tables: np.ndarray[Any, np.dtype[np.uint8]], ends: Sequence[int]) -> None:
    start = 0
    for end in ends:
        try:
            frequencies(tables[start:end])
        except ValueError as error:
            raise _malformed(str(error)) from error
        start = end


def _malformed(what: str) -> UserError:
    return UserError(f"not a valid pwfn file: {what}")
