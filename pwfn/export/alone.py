"""The decoder where numpy is not installed: torch alone, bit for bit what `stream.decode` gives (`docs/format.md`).

torch brings no numpy along. Its calls cost more than numpy's, so this decodes at a quarter to a half of its speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pwfn.export.container import Packed, Unpacked, stored_of, words_of
from pwfn.export.layout import Coding, Kind, Layout, Record, check_groups, stored_bytes
from pwfn.export.rules import (
    LEVELS,
    LOWEST,
    MAX_SYMBOLS,
    NO_END,
    NO_STATES,
    NO_WORDS,
    PRECISION,
    STEPS_AT_ONCE,
    TOTAL,
    check_table,
    inflate,
)

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types that hold bit patterns of so many bytes."""


def decode(packed: Packed) -> Unpacked:
    """Decode an opened file with torch alone.

    Raises:
        ValueError: it is not one that `stream.encode_stream` writes.
    """
    layout = packed.layout
    states, size = _unpack_states(packed.rest, packed.num_lanes)
    stream = _Stream(layout.tables, states, _tensor(words_of(packed, size), 2))
    symbols = [_pull(stream, layout, record) for record in layout.records]
    stored, stream_bytes = stored_of(packed, size, stream.finish())
    elements: list[Tensor] = []
    place = 0
    for record, coded in zip(layout.records, symbols, strict=True):
        size = stored_bytes(record)
        elements.append(_elements(layout, record, coded, stored[place : place + size], elements))
        place += size
    return Unpacked(packed, elements, symbols, stream_bytes)


def _tensor(data: bytes | bytearray | memoryview, size: int) -> Tensor:
    """Bytes as whole numbers of so many bytes, of which torch knows only those with a sign, and uint8."""
    return (
        torch.frombuffer(bytearray(data), dtype=INTEGERS[size]) if len(data) else torch.empty(0, dtype=INTEGERS[size])
    )


def _unpack_states(data: memoryview, num_lanes: int) -> tuple[Tensor, int]:
    start = 2 * num_lanes + -(-num_lanes // 2)
    if len(data) < start:
        raise ValueError(NO_STATES)
    low = _tensor(data[: 2 * num_lanes], 2).long() & 0xFFFF
    nibbles = _tensor(data[2 * num_lanes : start], 1)
    lengths = torch.stack([nibbles & 15, nibbles >> 4], 1).reshape(-1)[:num_lanes].long()
    num_bits = int(lengths.sum())
    size = -(-num_bits // 8)
    packed = _tensor(data[start : start + size], 1)
    if len(packed) < size:
        raise ValueError(NO_STATES)
    bits = torch.zeros((num_lanes, 15), dtype=torch.int64)
    ones = packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8) & 1
    bits[torch.arange(15) < lengths[:, None]] = ones.reshape(-1)[:num_bits].long()
    upper = (1 << lengths) + (bits << torch.arange(15)).sum(1)
    return low | upper << 16, start + size


class _Stream:
    """The lanes, their words and tables; see `rans.Decoder`."""

    def __init__(self, tables: Sequence[bytes], states: Tensor, words: Tensor) -> None:
        self._states, self._words, self._place = states, words, 0
        self._slots = _slots(tables)

    def pull(self, number: int, tables: Tensor, contexts: Tensor | None = None) -> Tensor:
        """Decode so many symbols, uint8; `tables` of each context, `contexts` of each symbol, or None for the first."""
        symbols = torch.empty(number, dtype=torch.uint8)
        num_lanes = max(len(self._states), 1)
        starts = tables * TOTAL
        for first in range(0, number, STEPS_AT_ONCE * num_lanes):
            own = symbols[first : first + STEPS_AT_ONCE * num_lanes]
            places = starts[:1].expand(len(own))
            if contexts is not None:
                places = starts.index_select(0, contexts[first : first + len(own)].int())
            found = torch.empty(len(own), dtype=torch.int32)
            for lane in range(0, len(own), num_lanes):
                self._step(places[lane : lane + num_lanes], found[lane : lane + num_lanes])
            own.copy_(found >> PRECISION & 255)
        return symbols

    def _step(self, places: Tensor, entries: Tensor) -> None:
        states = self._states[: len(places)]
        torch.index_select(self._slots, 0, (states & (TOTAL - 1)).add_(places), out=entries)
        wide = entries.long()
        states >>= PRECISION
        states *= (wide >> (PRECISION + 8) & (TOTAL - 1)).add_(1)
        states += wide.bitwise_and_(TOTAL - 1)
        empty = (states < LOWEST).nonzero().view(-1)
        end = self._place + len(empty)
        if end > len(self._words):
            raise ValueError(NO_WORDS)
        words = self._words[self._place : end].long() & 0xFFFF
        states.index_copy_(0, empty, states.index_select(0, empty) << 16 | words)
        self._place = end

    def finish(self) -> bytes:
        """Return the bytes that the lanes carried."""
        carried = self._states - LOWEST
        if self._place != len(self._words) or bool((carried >= LOWEST).any()):
            raise ValueError(NO_END)
        pairs = torch.stack([carried & 255, carried >> 8], 1).reshape(-1)
        return bytes(pairs.tolist())


def _slots(tables: Sequence[bytes]) -> Tensor:
    """One entry per slot of each table, int32: see `rans.SymbolTables.slots`."""
    filled = torch.zeros((len(tables), MAX_SYMBOLS), dtype=torch.int64)
    for own, table in zip(filled, tables, strict=True):
        check_table(table)
        own[: len(table)] = _tensor(table, 1)
    weights, used = torch.tensor(LEVELS)[filled].cumsum(1), (filled > 0).cumsum(1)
    ends = weights * (TOTAL - used[:, -1:]) // weights[:, -1:] + used
    starts = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], 1)
    frequency = ends - starts
    of_symbol = (frequency - 1 << PRECISION + 8) + (torch.arange(MAX_SYMBOLS) << PRECISION) - starts
    found = of_symbol.reshape(-1).repeat_interleave(frequency.reshape(-1)).reshape(-1, TOTAL) + torch.arange(TOTAL)
    return found.reshape(-1).int()


def _pull(stream: _Stream, layout: Layout, record: Record) -> Any:
    coding, number = record.coding, record.num_elements
    if coding.kind == Kind.PLANES:
        return [stream.pull(number, torch.tensor([table - 1])) if table else None for table in coding.planes]
    if coding.kind < Kind.PALETTE:
        return None
    if not coding.tables:
        return torch.zeros(number, dtype=torch.uint8)
    tables = torch.tensor(coding.tables)
    if coding.kind == Kind.LINES:
        height, classes = coding.kernel[0], _tensor(coding.classes, 1)
        return stream.pull(
            number, tables, (classes[:height, None] * coding.num_line_classes + classes[height:]).view(-1)
        )
    if coding.kind != Kind.GROUPED and len(layout.palettes[coding.palette]) > MAX_SYMBOLS:
        high = stream.pull(number, tables)
        return high.int() << 8 | stream.pull(number, tables[1:], high)
    if coding.kernel == (1, 1):
        return stream.pull(number, tables)
    return _pull_kernels(stream, coding, tables, number)


def _pull_kernels(stream: _Stream, coding: Coding, tables: Tensor, number: int) -> Tensor:
    """Decode kernels position by position, each in the context of its neighbours to the left and above."""
    height, width = coding.kernel
    none = coding.num_classes
    of_symbol = torch.bucketize(
        torch.arange(MAX_SYMBOLS), torch.tensor(coding.thresholds, dtype=torch.int64), right=True
    )
    rows = torch.empty((coding.num_positions, number // coding.num_positions), dtype=torch.uint8)
    classes = torch.empty(rows.shape, dtype=torch.int32)
    outside = torch.full(rows.shape[1:], none, dtype=torch.int32)
    for position in range(len(rows)):
        left = classes[position - 1] if position % width else outside
        above = classes[position - width] if position >= width else outside
        both = left * (none + 1) + above
        contexts = above if width == 1 else left if height == 1 else both
        rows[position] = stream.pull(rows.shape[1], tables, contexts if height * width > 1 else None)
        classes[position] = of_symbol[rows[position].int()]
    return rows.T.reshape(-1)


def _elements(layout: Layout, record: Record, coded: Any, raw: bytes, before: Sequence[Tensor]) -> Tensor:
    coding, number, size = record.coding, record.num_elements, record.element_bytes
    if coding.kind == Kind.STORED:
        return _tensor(raw, size)
    if coding.kind == Kind.DEFLATED:
        return _tensor(inflate(raw, number * size), size)
    if coding.kind == Kind.PLANES:
        stored = iter(_tensor(raw, 1).reshape(-1, number) if number else ())
        planes = [next(stored) if plane is None and number else plane for plane in coded]
        return torch.stack(planes[::-1], 1).reshape(-1).view(INTEGERS[size]) if number else _tensor(b"", size)
    if coding.kind == Kind.GROUPED:
        num_groups, length = layout.records[coding.part].shape
        check_groups(record, num_groups)
        bases = torch.arange(num_groups, dtype=torch.int32)[:, None] * length
        places = coded.reshape(-1, num_groups, coding.group) + bases
        return before[coding.part].index_select(0, places.reshape(-1))
    palette = _tensor(layout.palettes[coding.palette].tobytes(), size)
    if len(palette) > MAX_SYMBOLS and coded.numel() and int(coded.max()) >= len(palette):
        raise ValueError(f"tensor {record.name!r} has a symbol beyond its palette")
    values = palette.index_select(0, coded.int())
    if coding.kind == Kind.SCALED:
        scales = before[coding.part].view(torch.float32)
        check_groups(record, len(scales))
        values.view(torch.float32).reshape(-1, len(scales), coding.group).mul_(scales[:, None])
    return values
