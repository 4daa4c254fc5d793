"""The symbols of all tensors to one stream and back, and the elements that the symbols stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pwfn.export.container import Packed, Unpacked, stored_of, words_of
from pwfn.export.contexts import class_of_symbol, contexts_at, cut, line_contexts
from pwfn.export.layout import Coding, Kind, Layout, Record, check_groups, stored_bytes
from pwfn.export.rans import (
    ByteArray,
    ContextArray,
    Decoder,
    Encoder,
    PaletteArray,
    StateArray,
    SymbolTables,
    TableArray,
    WordArray,
    unpack_states,
)
from pwfn.export.rules import MAX_SYMBOLS, TOTAL, inflate

SymbolArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Symbols = SymbolArray | list[ByteArray | None] | None
"""What is coded of a tensor: its symbols, those of its byte planes (None where one is stored), or nothing."""
SYMBOLS_PER_LANE = 256
"""A lane costs half a byte, or 2.5 where it has nothing to carry: 0.015 bit a weight, or with half as many 0.04."""
MAX_LANES = 1 << 13
"""More lanes are not faster: their states leave the cache."""


@dataclass(frozen=True)
class Stream:
    """Symbols as they lie in the file: the lanes' last states and their words; and bytes that are stored."""

    states: StateArray
    words: WordArray
    stored: bytes
    """All stored bytes, those that the lanes carry first."""


def num_lanes_for(num_symbols: int, num_stored: int) -> int:
    """Choose the number of lanes, a power of two, for so many symbols and bytes to carry; half where those are few."""
    wanted = min(num_symbols // SYMBOLS_PER_LANE, MAX_LANES)
    num_lanes = 1 << max(wanted.bit_length() - 1, 0) if num_symbols else 0
    return num_lanes if 2 * num_lanes <= num_stored else -(-num_lanes // 2)


class _Sink(Protocol):
    def push(self, symbols: ByteArray, tables: TableArray, contexts: ContextArray | int = 0) -> None: ...


def encode_stream(layout: Layout, symbols: Sequence[Symbols], stored: bytes) -> Stream:
    """Code the symbols of every record, in order."""
    num_symbols = sum(_num_symbols(record.coding, coded) for record, coded in zip(layout.records, symbols, strict=True))
    num_lanes = num_lanes_for(num_symbols, len(stored))
    carried = np.frombuffer(stored[: 2 * num_lanes].ljust(2 * num_lanes, b"\0"), np.uint8)
    encoder = Encoder(SymbolTables(layout.tables), carried)
    for record, coded in zip(reversed(layout.records), reversed(symbols), strict=True):
        _push(encoder, record.coding, coded)
    states, words = encoder.finish()
    return Stream(states, words, stored)


def _num_symbols(coding: Coding, coded: Symbols) -> int:
    if isinstance(coded, list):
        return sum(len(plane) for plane in coded if plane is not None)
    if coded is None or not coding.tables:
        return 0
    return len(coded) * (2 if coded.dtype == np.uint16 else 1)


def _push(encoder: _Sink, coding: Coding, coded: Symbols) -> None:
    if isinstance(coded, list):
        for plane, table in zip(reversed(coded), reversed(coding.planes), strict=True):
            if plane is not None:
                encoder.push(plane, np.array([table - 1]))
    elif coded is not None and coding.tables:
        tables = np.array(coding.tables, dtype=np.intp)
        if coded.dtype == np.uint16:
            high, low = (coded >> 8).astype(np.uint8), coded.astype(np.uint8)
            encoder.push(low, tables[1:], high)
            encoder.push(high, tables)
        elif coding.kind == Kind.LINES:
            encoder.push(coded.view(np.uint8), tables, line_contexts(coding))
        else:
            rows = cut(coded.view(np.uint8), coding.kernel)
            classes = class_of_symbol(coding)[rows]
            for position in reversed(range(len(rows))):
                encoder.push(rows[position], tables, contexts_at(classes, position, coding))


def decode(packed: Packed) -> Unpacked:
    """Decode an opened file with numpy.

    Raises:
        ValueError: it is not one that `encode_stream` writes.
    """
    layout = packed.layout
    states, size = unpack_states(packed.rest, packed.num_lanes)
    symbols, carried = decode_stream(layout, states, np.frombuffer(words_of(packed, size), "<u2"))
    stored, stream_bytes = stored_of(packed, size, carried)
    return Unpacked(packed, elements_of(layout, symbols, stored), symbols, stream_bytes)


def decode_stream(layout: Layout, states: StateArray, words: WordArray) -> tuple[list[Symbols], bytes]:
    """Return the symbols of every record, and the bytes that the lanes carried.

    Raises:
        ValueError: the stream is not one that `encode_stream` writes.
    """
    decoder = Decoder(SymbolTables(layout.tables), states, words)
    symbols = [_pull(decoder, layout, record) for record in layout.records]
    return symbols, decoder.finish().tobytes()


def _pull(decoder: Decoder, layout: Layout, record: Record) -> Symbols:
    coding, number = record.coding, record.num_elements
    if coding.kind == Kind.PLANES:
        return [_pulled(decoder, number, np.array([table - 1])) if table else None for table in coding.planes]
    if coding.kind < Kind.PALETTE:
        return None
    if not coding.tables:
        return np.zeros(number, dtype=np.uint8)
    tables = np.array(coding.tables, dtype=np.intp)
    if coding.kind == Kind.LINES:
        return _pulled(decoder, number, tables, line_contexts(coding))
    if coding.kind != Kind.GROUPED and len(layout.palettes[coding.palette]) > MAX_SYMBOLS:
        high = _pulled(decoder, number, tables)
        low = _pulled(decoder, number, tables[1:], high)
        return (high.astype(np.uint16) << 8 | low).astype(np.uint16)
    if coding.kernel == (1, 1):
        return _pulled(decoder, number, tables)
    of_symbol = class_of_symbol(coding)
    rows = np.empty((coding.num_positions, number // coding.num_positions), dtype=np.uint8)
    classes = np.empty(rows.shape, of_symbol.dtype)
    for position, row in enumerate(rows):
        decoder.pull(row, tables, contexts_at(classes, position, coding))
        of_symbol.take(row, out=classes[position], mode="clip")  # 256 entries: none is outside
    return np.ascontiguousarray(rows.T).reshape(-1)


def _pulled(decoder: Decoder, number: int, tables: TableArray, contexts: ContextArray | int = 0) -> ByteArray:
    symbols = np.empty(number, dtype=np.uint8)
    decoder.pull(symbols, tables, contexts)
    return symbols


def code_bits(layout: Layout, symbols: Sequence[Symbols]) -> list[float]:
    """Return the bits that the symbols of each record take under their tables."""
    bits = np.log2(TOTAL / np.maximum(SymbolTables(layout.tables).frequency, 1))
    return [_code_bits(bits, record.coding, coded) for record, coded in zip(layout.records, symbols, strict=True)]


def _code_bits(bits: npt.NDArray[np.float64], coding: Coding, coded: Symbols) -> float:
    found: list[float] = []

    class Counter:
        """Takes batches as an encoder does."""

        def push(self, symbols: ByteArray, tables: TableArray, contexts: ContextArray | int = 0) -> None:
            found.append(float(bits[tables[contexts], symbols].sum()))

    _push(Counter(), coding, coded)
    return sum(found)


def elements_of(layout: Layout, symbols: Sequence[Symbols], stored: bytes) -> list[PaletteArray]:
    """Return the bit patterns of every record's elements, flat.

    Raises:
        ValueError: symbols beyond a palette, groups that do not divide a tensor, bytes that do not inflate.
    """
    found: list[PaletteArray] = []
    place = 0
    for record, coded in zip(layout.records, symbols, strict=True):
        size = stored_bytes(record)
        raw = stored[place : place + size]
        place += size
        found.append(_elements(layout, record, coded, raw, found))
    return found


def _elements(
    layout: Layout, record: Record, coded: Symbols, raw: bytes, before: Sequence[PaletteArray]
) -> PaletteArray:
    dtype = np.dtype(f"<u{record.element_bytes}")
    kind = record.coding.kind
    if kind == Kind.STORED:
        return np.frombuffer(bytearray(raw), dtype)
    if kind == Kind.DEFLATED:
        return np.frombuffer(inflate(raw, record.num_elements * dtype.itemsize), dtype)
    if isinstance(coded, list):
        return _join_planes(coded, raw, record.num_elements)
    assert coded is not None
    if kind == Kind.GROUPED:
        return _grouped(layout, record, coded, before)
    palette = np.asarray(layout.palettes[record.coding.palette])
    if len(palette) > MAX_SYMBOLS and coded.size and coded.max() >= len(palette):
        raise ValueError(f"tensor {record.name!r} has a symbol beyond its palette")
    values = palette.take(coded)
    return _scaled(record, values, before) if kind == Kind.SCALED else values


def _join_planes(planes: Sequence[ByteArray | None], raw: bytes, number: int) -> PaletteArray:
    found = np.empty((number, len(planes)), dtype=np.uint8)
    stored = iter(np.frombuffer(raw, np.uint8).reshape(-1, number) if number else ())
    for column, plane in zip(reversed(range(len(planes))), planes, strict=True):
        if number:
            found[:, column] = next(stored) if plane is None else plane
    return np.asarray(found.reshape(-1).view(f"<u{len(planes)}"))


def _grouped(layout: Layout, record: Record, symbols: Any, before: Sequence[PaletteArray]) -> PaletteArray:
    """Look each symbol up in the palette of its group."""
    num_groups, length = layout.records[record.coding.part].shape
    check_groups(record, num_groups)
    bases = np.arange(num_groups, dtype=np.intp)[:, None] * length
    places = symbols.reshape(-1, num_groups, record.coding.group) + bases
    found: PaletteArray = before[record.coding.part].take(places.reshape(-1))
    return found


def _scaled(record: Record, values: PaletteArray, before: Sequence[PaletteArray]) -> PaletteArray:
    """Multiply each value by the scale of its group: one IEEE product, so that all platforms agree to the bit."""
    scales = before[record.coding.part].view(np.float32)
    check_groups(record, len(scales))
    factors = values.view(np.float32).reshape(-1, len(scales), record.coding.group)
    with np.errstate(all="ignore"):
        factors *= scales[:, None]
    return values
