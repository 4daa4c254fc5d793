"""Asymmetric numeral systems over many lanes: integer tables, numpy alone, the same on every platform.

Duda's range variant of ANS (arXiv:1311.2540) with 32-bit states, 16-bit words and frequencies that sum to 2^12. The
symbols of a batch are dealt to the lanes in turn and all lanes go on at once, as in Giesen's interleaved coder
(arXiv:1402.3392), here with numpy's vectors: a thousand lanes decode 30 to 70 million symbols a second without any
compiled code of our own.

A lane costs 3.4 bytes for its last state, packed, of which its first state gives two back: those bits are free, so they
carry bytes that the file has to store anyway (`carried`). What is left is half a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pwfn.export.rules import (
    LEVELS,
    LOWEST,
    MAX_LEVEL,
    MAX_SYMBOLS,
    NO_END,
    NO_STATES,
    NO_WORDS,
    PRECISION,
    STEPS_AT_ONCE,
    TOTAL,
    check_table,
)

ByteArray = npt.NDArray[np.uint8]
WordArray = npt.NDArray[np.uint16]
StateArray = npt.NDArray[np.uint32]
IndexArray = npt.NDArray[np.int64]
PaletteArray = npt.NDArray[np.unsignedinteger]

MASK, SHIFT, FREQUENCY_SHIFT = np.uint32(TOTAL - 1), np.uint32(PRECISION), np.uint32(PRECISION + 8)
LEAST = np.uint32(LOWEST)
WEIGHTS: IndexArray = np.array(LEVELS, dtype=np.int64)
TableArray = npt.NDArray[np.intp]
ContextArray = npt.NDArray[np.unsignedinteger]


def quantize_counts(counts: npt.NDArray[Any]) -> ByteArray:
    """Round counts `(num_symbols,)`, not all zero, to table bytes; a symbol that occurs never gets 0."""
    scaled = counts / counts.max() * WEIGHTS[MAX_LEVEL]
    middles = (WEIGHTS[1 : MAX_LEVEL + 1] + WEIGHTS[:MAX_LEVEL]) / 2
    found = np.searchsorted(middles, scaled)
    return np.where(counts > 0, np.maximum(found, 1), 0).astype(np.uint8)


def frequencies(tables: Sequence[bytes]) -> IndexArray:
    """Expand tables' bytes to frequencies `(num_tables, MAX_SYMBOLS)`; each row sums to TOTAL, byte 0 stands for none.

    Raises:
        ValueError: every byte of a table is zero or one is above MAX_LEVEL, or it is empty or longer than MAX_SYMBOLS.
    """
    filled = np.zeros((len(tables), MAX_SYMBOLS), dtype=np.uint8)
    for own, table in zip(filled, tables, strict=True):
        check_table(table)
        own[: len(table)] = list(table)
    weights, used = np.cumsum(WEIGHTS[filled], axis=1), np.cumsum(filled > 0, axis=1)
    ends = weights * (TOTAL - used[:, -1:]) // weights[:, -1:] + used
    return np.asarray(np.diff(ends, axis=1, prepend=0))


class SymbolTables:
    """What the coder looks up, for all tables of a file.

    Args:
        tables: of the file.

    Raises:
        ValueError: as `frequencies`.
    """

    def __init__(self, tables: Sequence[bytes]) -> None:
        self.frequency = frequencies(tables).astype(np.uint32)
        self.start = (np.cumsum(self.frequency, axis=1, dtype=np.uint32) - self.frequency).astype(np.uint32)

    def slots(self) -> StateArray:
        """Return one entry per slot, uint32 `(num_tables * TOTAL,)`: what the decoder needs of it, in 32 bits.

        From the lowest: 12 bits for the slot's place within its symbol, 8 for the symbol, 12 for the frequency less 1.
        """
        symbols = np.arange(MAX_SYMBOLS, dtype=np.uint32) << SHIFT
        of_symbol = ((self.frequency - 1) << FREQUENCY_SHIFT) + symbols - self.start  # wraps around, and back below
        found = np.repeat(of_symbol.reshape(-1), self.frequency.reshape(-1)).reshape(len(of_symbol), TOTAL)
        found += np.arange(TOTAL, dtype=np.uint32)
        return found.reshape(-1)


class Encoder:
    """Codes batches, the last one first, since the coder is a stack.

    Args:
        tables: of the file.
        carried: bytes that the first states hold, two per lane; `(2 * num_lanes,)`.
    """

    def __init__(self, tables: SymbolTables, carried: ByteArray) -> None:
        self._frequency, self._start = tables.frequency.reshape(-1), tables.start.reshape(-1)
        self._states = carried.view("<u2").astype(np.uint32) + LEAST
        self._words: list[WordArray] = []

    def push(self, symbols: ByteArray, tables: TableArray, contexts: ContextArray | int = 0) -> None:
        """Code a batch.

        Args:
            symbols: of the batch.
            tables: of each context.
            contexts: of each symbol, or one for all.
        """
        size = STEPS_AT_ONCE * len(self._states)
        starts = tables * MAX_SYMBOLS
        for first in reversed(range(0, len(symbols), size)):
            piece = slice(first, first + size)
            own = starts[contexts] if isinstance(contexts, int) else starts.take(contexts[piece])
            self._push(own + symbols[piece])

    def _push(self, places: npt.NDArray[np.intp]) -> None:
        num_lanes = len(self._states)
        frequency, start = self._frequency[places], self._start[places]
        for first in reversed(range(0, len(places), num_lanes)):
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
        low, high = self._states.view(np.uint16)[::2], self._states.view(np.uint16)[1::2]
        self._lanes = (self._states, low, high, np.empty_like(states), np.empty_like(states))
        self._words, self._place = words, 0

    def pull(self, symbols: ByteArray, tables: TableArray, contexts: ContextArray | int = 0) -> None:
        """Decode a batch.

        Args:
            symbols: where it goes.
            tables: of each context.
            contexts: of each symbol, or one for all.

        Raises:
            ValueError: the words end before the symbols do.
        """
        size = STEPS_AT_ONCE * len(self._states)
        starts = tables * TOTAL
        for first in range(0, len(symbols), size):
            own = symbols[first : first + size]
            if isinstance(contexts, int):
                self._pull(own, np.full(len(own), starts[contexts]))
            else:
                self._pull(own, starts.take(contexts[first : first + size]))

    def _pull(self, symbols: ByteArray, places: npt.NDArray[np.intp]) -> None:
        """Decode at most STEPS_AT_ONCE symbols per lane; `places` is where the table of each begins."""
        num_lanes = len(self._states)
        found = np.empty(len(symbols), dtype=np.uint32)
        lanes: tuple[Any, ...] = self._lanes
        for first in range(0, len(symbols), num_lanes):
            if len(symbols) - first < num_lanes:
                lanes = tuple(each[: len(symbols) - first] for each in lanes)
            self._step(places[first : first + num_lanes], found[first : first + num_lanes], lanes)
        np.right_shift(found, SHIFT, out=symbols, casting="unsafe")  # of the frequency above nothing is left

    def _step(self, places: npt.NDArray[np.intp], entries: StateArray, lanes: tuple[Any, ...]) -> None:
        """Take one symbol per lane.

        Every call of numpy counts: on a thousand lanes it takes as long for the call as for the numbers.
        """
        states, low, high, quotients, numbers = lanes
        places += np.bitwise_and(states, MASK, out=numbers)
        self._slots.take(places, out=entries, mode="clip")  # none is outside; a check would copy
        np.right_shift(states, SHIFT, out=quotients)
        np.right_shift(entries, FREQUENCY_SHIFT, out=states)
        states *= quotients
        states += quotients  # since it was the frequency less 1
        states += np.bitwise_and(entries, MASK, out=numbers)
        (empty,) = (states < LEAST).nonzero()
        end = self._place + len(empty)
        if end > len(self._words):
            raise ValueError(NO_WORDS)
        high[empty] = low[empty]
        low[empty] = self._words[self._place : end]
        self._place = end

    def finish(self) -> ByteArray:
        """Return the bytes that the lanes carried.

        Raises:
            ValueError: the stream is not one that `Encoder` writes.
        """
        carried = self._states - LEAST
        if self._place != len(self._words) or (carried >= LEAST).any():
            raise ValueError(NO_END)
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


def unpack_states(data: bytes | memoryview, num_lanes: int) -> tuple[StateArray, int]:
    """Read the states of so many lanes; return them and the bytes they took.

    Raises:
        ValueError: there are too few bytes.
    """
    start = 2 * num_lanes + -(-num_lanes // 2)
    if len(data) < start:
        raise ValueError(NO_STATES)
    low = np.frombuffer(data, "<u2", num_lanes).astype(np.uint32)
    nibbles = np.frombuffer(data[2 * num_lanes : start], np.uint8)
    lengths = np.stack([nibbles & 15, nibbles >> 4], axis=1).reshape(-1)[:num_lanes].astype(np.int64)
    size = -(-int(lengths.sum()) // 8)
    packed = np.frombuffer(data[start : start + size], np.uint8)
    if len(packed) < size:
        raise ValueError(NO_STATES)
    bits = np.zeros((num_lanes, 15), dtype=np.int64)
    bits[np.arange(15) < lengths[:, None]] = np.unpackbits(packed)[: lengths.sum()]
    upper = (1 << lengths) + (bits << np.arange(15)).sum(axis=1)
    return low | (upper << 16).astype(np.uint32), start + size
