"""Asymmetric numeral systems over many lanes: integer tables, numpy alone, the same on every platform.

Duda's range variant of ANS (arXiv:1311.2540) with 32-bit states, 16-bit words and frequencies that sum to 2^12. The
symbols of a batch are dealt to the lanes in turn and all lanes go on at once, as in Giesen's interleaved coder
(arXiv:1402.3392), here with numpy's vectors: a thousand lanes decode 30 to 70 million symbols a second without any
compiled code of our own, which is what lets a file be loaded where only torch and numpy are installed.

A lane costs 3.4 bytes for its last state, packed, of which its first state gives two back: those bits are free, so they
carry bytes that the file has to store anyway (`carried`). What is left is half a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
WordArray = npt.NDArray[np.uint16]
StateArray = npt.NDArray[np.uint32]
IndexArray = npt.NDArray[np.int64]

PRECISION = 12
"""Frequencies sum to 2^12: at 14 bits the decoder's tables leave the processor's cache and save under 0.05 %."""
TOTAL = 1 << PRECISION
MAX_SYMBOLS = 256
"""Longest table; more values are coded in two digits."""
LOWEST = 1 << 16
"""Least state between symbols: one whose upper half is not zero."""
MASK, SHIFT = np.uint32(TOTAL - 1), np.uint32(PRECISION)
STEPS_AT_ONCE = 64
"""Symbols per lane that are looked up together: bounds the memory beyond input and output."""
LEVELS: IndexArray = np.array(
    [code if code < 8 else (8 + code % 8) << (code // 8 - 1) for code in range(256)], dtype=np.int64
)
"""Weight of each table byte: a float of 5 exponent and 3 mantissa bits. Its error of at most 6 % costs less than 0.002
bit per weight, and the bytes of a table repeat more than with a fourth mantissa bit, so that they deflate better."""
MAX_LEVEL = 119
"""Largest table byte in use, of weight 15 * 2^13: more than the rarest symbol of 2^12 needs."""
SYMBOL = np.dtype([("frequency", "<u4"), ("offset", "<u2"), ("symbol", "<u2")])
"""One of the 2^12 slots of a table: its symbol's frequency, the slot's place within the symbol, the symbol."""

Batch = tuple[ByteArray, npt.NDArray[np.intp] | int]
"""Symbols `(num_symbols,)`, and the table of each, or one for all."""


def quantize_counts(counts: npt.NDArray[Any]) -> ByteArray:
    """Round counts `(num_symbols,)`, not all zero, to table bytes; a symbol that occurs never gets 0."""
    scaled = counts / counts.max() * LEVELS[MAX_LEVEL]
    middles = (LEVELS[1 : MAX_LEVEL + 1] + LEVELS[:MAX_LEVEL]) / 2
    found = np.searchsorted(middles, scaled)
    return np.where(counts > 0, np.maximum(found, 1), 0).astype(np.uint8)


def frequencies(table: ByteArray) -> IndexArray:
    """Expand a table's bytes to frequencies `(num_symbols,)` that sum to TOTAL; byte 0 stands for none.

    Raises:
        ValueError: every byte is zero or one is above MAX_LEVEL, or the table is empty or longer than MAX_SYMBOLS.
    """
    num_symbols = len(table)
    if not 0 < num_symbols <= MAX_SYMBOLS or not table.any() or table.max() > MAX_LEVEL:
        raise ValueError(f"a table of {num_symbols} entries, of which {np.count_nonzero(table)} are not zero")
    weights, used = np.cumsum(LEVELS[table]), np.cumsum(table > 0)
    ends = weights * (TOTAL - used[-1]) // weights[-1] + used
    return np.asarray(np.diff(ends, prepend=0))


class SymbolTables:
    """What the coder looks up, for all tables of a file.

    Args:
        tables: uint8 `(num_symbols,)` each.

    Raises:
        ValueError: as `frequencies`.
    """

    def __init__(self, tables: Sequence[ByteArray]) -> None:
        self.frequency = np.zeros((len(tables), MAX_SYMBOLS), dtype=np.uint32)
        for own, table in zip(self.frequency, tables, strict=True):
            own[: len(table)] = frequencies(table)
        self.start = (np.cumsum(self.frequency, axis=1, dtype=np.uint32) - self.frequency).astype(np.uint32)

    def slots(self) -> npt.NDArray[np.uint64]:
        """Return one entry per slot, uint64 `(num_tables * TOTAL,)`, with the fields of SYMBOL."""
        flat = self.frequency.reshape(-1)
        found = np.empty(len(self.frequency) * TOTAL, dtype=SYMBOL)
        found["frequency"] = np.repeat(flat, flat)
        found["symbol"] = np.repeat(np.tile(np.arange(MAX_SYMBOLS, dtype=np.uint16), len(self.frequency)), flat)
        slots = np.tile(np.arange(TOTAL, dtype=np.uint16), len(self.frequency))
        found["offset"] = slots - np.repeat(self.start.reshape(-1), flat).astype(np.uint16)
        return found.view(np.uint64)


class Encoder:
    """Codes batches, the last one first, since the coder is a stack.

    Args:
        tables: of the file.
        carried: bytes that the first states hold, two per lane; `(2 * num_lanes,)`.
    """

    def __init__(self, tables: SymbolTables, carried: ByteArray) -> None:
        self._frequency, self._start = tables.frequency.reshape(-1), tables.start.reshape(-1)
        self._states = carried.view("<u2").astype(np.uint32) + np.uint32(LOWEST)
        self._words: list[WordArray] = []

    def push(self, symbols: ByteArray, table: npt.NDArray[np.intp] | int) -> None:
        """Code a batch."""
        size = STEPS_AT_ONCE * len(self._states)
        for first in reversed(range(0, len(symbols), size)):
            piece = slice(first, first + size)
            self._push(symbols[piece], table if isinstance(table, int) else table[piece])

    def _push(self, symbols: ByteArray, table: npt.NDArray[np.intp] | int) -> None:
        num_lanes = len(self._states)
        places = symbols + np.asarray(table, dtype=np.int32) * np.int32(MAX_SYMBOLS)
        frequency, start = self._frequency[places], self._start[places]
        for first in reversed(range(0, len(symbols), num_lanes)):
            self._step(frequency[first : first + num_lanes], start[first : first + num_lanes])

    def _step(self, frequency: StateArray, start: StateArray) -> None:
        states = self._states[: len(frequency)]
        full = np.flatnonzero(states >> (32 - PRECISION) >= frequency)
        if len(full):
            self._words.append(states[full].astype(np.uint16))
            states[full] >>= 16
        quotient = states // frequency
        states += quotient * (TOTAL - frequency) + start  # the same as (quotient << PRECISION) + remainder + start

    def finish(self) -> tuple[StateArray, WordArray]:
        """Return the last states and the words in the order in which the decoder takes them."""
        return self._states, np.concatenate([np.zeros(0, np.uint16), *reversed(self._words)])


class Decoder:
    """Decodes batches in their order.

    Args:
        tables: of the file.
        states: uint32 `(num_lanes,)`.
        words: uint16.
    """

    def __init__(self, tables: SymbolTables, states: StateArray, words: WordArray) -> None:
        self._slots = tables.slots()
        self._states = states.copy()
        self._words, self._place = words, 0

    def pull(self, num_symbols: int, table: npt.NDArray[np.intp] | int) -> ByteArray:
        """Decode a batch; `table` is the table of each symbol, or one for all.

        Raises:
            ValueError: the words end before the symbols do.
        """
        symbols = np.empty(num_symbols, dtype=np.uint8)
        size = STEPS_AT_ONCE * len(self._states)
        for first in range(0, num_symbols, size):
            piece = slice(first, first + size)
            symbols[piece] = self._pull(len(symbols[piece]), table if isinstance(table, int) else table[piece])
        return symbols

    def _pull(self, num_symbols: int, table: npt.NDArray[np.intp] | int) -> npt.NDArray[np.uint16]:
        """Decode at most STEPS_AT_ONCE symbols per lane.

        Of each step every call of numpy counts: 1,024 lanes take as long for the calls as for the numbers.
        """
        places = np.empty(num_symbols, dtype=np.intp)
        np.multiply(table, TOTAL, out=places)
        found = np.empty(num_symbols, dtype=np.uint64)
        frequencies, offsets = found.view(np.uint32)[::2], found.view(np.uint16)[2::4]
        states, high, low = self._states, self._states.view(np.uint16)[1::2], self._states.view(np.uint16)[::2]
        for first in range(0, num_symbols, len(self._states)):
            piece = slice(first, first + len(self._states))
            own = places[piece]
            if len(own) < len(states):
                states, high, low = states[: len(own)], high[: len(own)], low[: len(own)]
            own += states & MASK
            self._slots.take(own, out=found[piece], mode="clip")  # none is outside; a check would copy
            states >>= SHIFT
            states *= frequencies[piece]
            states += offsets[piece]
            empty = high == 0
            words = self._take(int(np.count_nonzero(empty)))
            np.copyto(high, low, where=empty)
            low[empty] = words
        return found.view(np.uint16)[3::4]

    def _take(self, number: int) -> WordArray:
        words = self._words[self._place : self._place + number]
        if len(words) < number:
            raise ValueError("the stream of symbols ends before the last tensor does")
        self._place += number
        return words

    def finish(self) -> ByteArray:
        """Return the bytes that the lanes carried.

        Raises:
            ValueError: the stream is not one that `Encoder` writes.
        """
        carried = self._states - np.uint32(LOWEST)
        if self._place != len(self._words) or (carried >= LOWEST).any():
            raise ValueError("the stream of symbols does not end where the last tensor does")
        return carried.astype("<u2").view(np.uint8)


def pack_states(states: StateArray) -> bytes:
    """Write the lanes' states without their leading zeros: they are spread evenly over the powers of two.

    First the lower halves; then, of the upper halves, how many bits follow the highest one (four bits each, two to a
    byte); then those bits, the lowest first, lane after lane.
    """
    upper = (states >> 16).astype(np.int64)
    lengths = np.frexp(upper)[1] - 1
    bits = (upper[:, None] >> np.arange(15)) & 1
    nibbles = np.append(lengths, np.zeros(len(lengths) % 2, np.int64)).astype(np.uint8)
    packed = np.packbits(bits[np.arange(15) < lengths[:, None]].astype(np.uint8))
    return states.astype("<u2").tobytes() + (nibbles[::2] | nibbles[1::2] << 4).tobytes() + packed.tobytes()


def unpack_states(data: bytes, num_lanes: int) -> tuple[StateArray, int]:
    """Read the states of so many lanes; return them and the bytes they took.

    Raises:
        ValueError: there are too few bytes.
    """
    start = 2 * num_lanes + -(-num_lanes // 2)
    if len(data) < start:
        raise ValueError("the lanes' states end too early")
    low = np.frombuffer(data, "<u2", num_lanes).astype(np.uint32)
    nibbles = np.frombuffer(data[2 * num_lanes : start], np.uint8)
    lengths = np.stack([nibbles & 15, nibbles >> 4], axis=1).reshape(-1)[:num_lanes].astype(np.int64)
    size = -(-int(lengths.sum()) // 8)
    packed = np.frombuffer(data[start : start + size], np.uint8)
    if len(packed) < size:
        raise ValueError("the lanes' states end too early")
    bits = np.zeros((num_lanes, 15), dtype=np.int64)
    bits[np.arange(15) < lengths[:, None]] = np.unpackbits(packed)[: lengths.sum()]
    upper = (1 << lengths) + (bits << np.arange(15)).sum(axis=1)
    return low | (upper << 16).astype(np.uint32), start + size
