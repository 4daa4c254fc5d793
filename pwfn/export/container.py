"""The file, format version 2: a safetensors file with one tensor of bytes that hold all (`docs/format.md`).

Reading trusts nothing. The checksum is compared first; then every size is checked against the bytes that are really
there before anything is allocated for it, and every loop against a bound on its steps. Takes nothing but Python.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pwfn.errors import UserError
from pwfn.export.layout import Layout, num_steps, read_layout, stored_bytes
from pwfn.export.rules import inflate

FORMAT_VERSION = 2
TENSOR = "pwfn"
"""Name of the tensor that holds the file's contents."""
CHECKSUM_BYTES = 32
ELEMENTS_PER_BYTE = 512
"""A file of n bytes holds at most so many times n elements: what a hostile file can make a reader allocate."""
HEADER_ROOM, HEADER_PER_BYTE = 1 << 16, 32
"""Most bytes of an inflated header: a constant, and so many per byte of the file."""
TABLE_ROOM, BYTES_PER_TABLE = 256, 16
"""Most tables: a constant, and one per so many bytes of the file."""
STEP_ROOM, STEPS_PER_BYTE = 1 << 13, 16
"""Most steps of the decoder: a constant, and so many per byte of the file."""
MAX_LANES = 1 << 16
OTHER_KINDS = {
    b"version https://git-lfs": "a pointer of git-lfs; fetch the file itself with `git lfs pull`",
    b"<!doctype html": "a web page; download the file that the page links to",
    b"<html": "a web page; download the file that the page links to",
    b"pk\x03\x04": "an archive, as torch.save writes; export it with --state-dict",
}
"""What else people take for an exported file, by how it begins."""


@dataclass(frozen=True)
class Packed:
    """A file that was opened and found whole; its symbols are still coded."""

    layout: Layout
    header_bytes: int
    """Deflated."""
    num_lanes: int
    num_words: int
    rest: memoryview
    """The lanes' states, the words, and the stored bytes that no lane carries."""


@dataclass(frozen=True)
class Unpacked:
    """A file taken apart: the bit patterns of its records, and what they were coded as."""

    packed: Packed
    elements: Sequence[Any]
    """Flat, in memory that torch and numpy read: numpy's arrays or torch's tensors."""
    symbols: Sequence[Any]
    stream_bytes: int
    """Words and states of the lanes, less the stored bytes that these carry."""


Decode = Callable[[Packed], Unpacked]
"""`stream.decode`, with numpy, or `alone.decode`, with torch alone."""


def envelop(*parts: bytes | memoryview) -> bytes:
    """Join the parts of the body, put a checksum at the end and a safetensors header in front."""
    size = sum(map(len, parts)) + CHECKSUM_BYTES
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    entry = {TENSOR: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(entry, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts, checksum.digest()])


def read_envelope(data: bytes) -> dict[str, Any]:
    """Return the safetensors header of any file.

    Raises:
        UserError: it has none.
    """
    size = int.from_bytes(data[:8], "little")
    for start, what in OTHER_KINDS.items():
        if data[: len(start)].lower() == start and data[8:9] != b"{":
            raise UserError(f"not a pwfn file but {what}")
    if not data:
        raise UserError("the file is empty; copy or download it again")
    if len(data) < 8 or size > len(data) - 8:
        raise UserError(f"not a whole pwfn file: {len(data)} bytes, too few for a header of {size}; was it truncated?")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise malformed("the header is not JSON") from error
    if not isinstance(header, dict):
        raise malformed("the header is no JSON object")
    return header


def unpack(data: bytes, header: dict[str, Any], decode: Decode) -> Unpacked:
    """Read a file of version 2.

    Raises:
        UserError: damaged, foreign, of an unknown version or inconsistent.
    """
    body = _check_frame(data, header)
    try:
        return decode(_open(body))
    except UserError:
        raise
    except (ValueError, UnicodeDecodeError) as error:
        raise malformed(str(error)) from error


def _check_frame(data: bytes, header: dict[str, Any]) -> bytes:
    others = [name for name in header if name not in (TENSOR, "__metadata__")]
    if others:
        raise UserError(
            f"not a valid pwfn file: beside {TENSOR!r} it holds {others[0]!r}; was it joined with other tensors? "
            "export it again"
        )
    found = data[8 + int.from_bytes(data[:8], "little") :]
    expected = {"dtype": "U8", "shape": [len(found)], "data_offsets": [0, len(found)]}
    entry = header[TENSOR]
    if isinstance(entry, dict) and entry.get("dtype") != "U8":
        raise malformed(
            f"tensor {TENSOR!r} is {entry.get('dtype')} instead of U8: another program converted it; export again"
        )
    if entry != expected or len(found) < CHECKSUM_BYTES + 1:
        raise malformed(f"tensor {TENSOR!r} is not {len(found)} bytes; was the file truncated?")
    if not isinstance(header.get("__metadata__", {}), dict):
        raise malformed("its __metadata__ is no JSON object")
    body = found[:-CHECKSUM_BYTES]
    if hashlib.sha256(body).digest() != found[-CHECKSUM_BYTES:]:
        raise UserError("the file is damaged: its bytes do not match its checksum; fetch it again")
    if body[0] != FORMAT_VERSION:
        raise UserError(f"format version {body[0]} is unknown; this pwfn reads 1 and {FORMAT_VERSION}: upgrade it")
    return body


def _open(body: bytes) -> Packed:
    place, numbers = 1, []
    for _ in range(4):
        value, place = _read_number(body, place)
        numbers.append(value)
    header_size, raw_size, num_lanes, num_words = numbers
    if raw_size > HEADER_ROOM + HEADER_PER_BYTE * len(body) or num_lanes > MAX_LANES:
        raise ValueError(f"a header of {raw_size} bytes and {num_lanes} lanes in a file of {len(body)} bytes")
    layout = read_layout(bytes(inflate(body[place : place + header_size], raw_size)))
    _check_sizes(layout, num_lanes, len(body))
    return Packed(layout, header_size, num_lanes, num_words, memoryview(body)[place + header_size :])


def words_of(packed: Packed, num_state_bytes: int) -> memoryview:
    """Return the bytes of the words that follow the lanes' states.

    Raises:
        ValueError: they are too few.
    """
    found = packed.rest[num_state_bytes : num_state_bytes + 2 * packed.num_words]
    if len(found) < 2 * packed.num_words:
        raise ValueError("the words of the stream end too early")
    return found


def stored_of(packed: Packed, num_state_bytes: int, carried: bytes) -> tuple[bytes, int]:
    """Return all stored bytes, those that the lanes carried first, and the bytes of the stream without these.

    Raises:
        ValueError: they are not as many as the records need.
    """
    size = sum(map(stored_bytes, packed.layout.records))
    num_stream_bytes = num_state_bytes + 2 * packed.num_words
    stored = carried + packed.rest[num_stream_bytes:]
    if len(stored) < size or any(stored[size:]):
        raise ValueError("the stored bytes are not as many as the tensors need")
    return stored[:size], num_stream_bytes - min(len(carried), size)


def _read_number(body: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(5):
        if place + index >= len(body):
            raise ValueError("it ends too early")
        byte = body[place + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, place + index + 1
    raise ValueError("a size is too large")


def _check_sizes(layout: Layout, num_lanes: int, num_bytes: int) -> None:
    elements = sum(record.num_elements for record in layout.records)
    if elements > ELEMENTS_PER_BYTE * num_bytes:
        raise ValueError(f"{elements} elements in {num_bytes} bytes, more than {ELEMENTS_PER_BYTE} per byte")
    if len(layout.tables) > TABLE_ROOM + num_bytes // BYTES_PER_TABLE:
        raise ValueError(f"{len(layout.tables)} tables in {num_bytes} bytes")
    steps = num_steps(layout, num_lanes)
    if steps > STEP_ROOM + STEPS_PER_BYTE * num_bytes:
        raise ValueError(f"{steps} steps of {num_lanes} lanes in {num_bytes} bytes")
    if steps and not num_lanes:
        raise ValueError("symbols without lanes")


def malformed(what: str) -> UserError:
    """Say that a file has a true checksum but makes no sense."""
    return UserError(f"not a valid pwfn file: {what}")
