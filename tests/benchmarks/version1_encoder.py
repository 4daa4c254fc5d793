"""The encoder of format version 1 (pwfn/export/version1.py reads it), kept to measure later versions against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from pwfn.codebook import FloatArray, IntArray

AnsCoder = constriction.stream.stack.AnsCoder

TOTAL = 1 << 24
"""Sum of the frequencies of a table: the precision of constriction's coder."""
MAX_SYMBOLS = 1 << 18
"""Longest table. The least frequency is 1, so more symbols would waste a noticeable share of TOTAL."""
LEVELS: IntArray = np.array(
    [code if code < 16 else (16 + code % 16) << (code // 16 - 1) for code in range(256)], dtype=np.int64
)
"""Weight of each table byte: a float of 4 exponent and 4 mantissa bits, 0 to 31 * 2^14. Its error of at most 3 % costs
less than 0.001 bit per weight, and 2^18 of the largest times TOTAL still fit in int64."""
CODEBOOK_ENTRY_BYTES = 5
"""What one more value costs: 4 bytes in the codebook, 1 in a table."""
TABLE_BYTES = 12
"""What one more table costs beside its entries: its span (8 bytes) and its mention in the metadata."""
SAMPLE = 1 << 16
"""Weights of a large tensor that are looked at first."""
MAX_DISTINCT_SHARE = 0.95
"""Share of distinct values in the sample above which a tensor is not looked at further. Even MAX_SYMBOLS values, all
equally frequent, repeat more often; and finding every value of 25 million floats took longer than coding them."""
PIECE = 1 << 20
"""Weights passed to the coder at once: bounds the memory beyond input and output."""

BitArray = npt.NDArray[np.uint32]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CodedTensors:
    """What `encode` makes of many tensors; see `docs/format.md`.

    `codebook` float32 `(num_values,)`, distinct bit patterns; `tables` uint8, all tables one after the other; `spans`
    uint32 `(num_tables, 2)`, first codebook position and length of each table; `words` uint32, the stream; `table_of`
    the table of each coded tensor, in coding order.
    """

    codebook: FloatArray
    tables: ByteArray
    spans: BitArray
    words: BitArray
    table_of: dict[str, int]

    @property
    def num_bytes(self) -> int:
        """Bytes of codebook, tables, spans and stream."""
        return self.codebook.nbytes + self.tables.nbytes + self.spans.nbytes + self.words.nbytes


def encode(tensors: Mapping[str, FloatArray]) -> CodedTensors:
    """Code the tensors that share values; the names it leaves out cost less as they are.

    The values are kept to the bit: -0.0 and 0.0 are two entries, and so are two NaNs of different bits.

    Args:
        tensors: float32 arrays of any shape.
    """
    distinct = worth_coding(tensors)
    names = list(distinct)
    codebook = _in_order_of_appearance(list(distinct.values()))
    positions = {name: _positions(_bits(tensors[name]), codebook) for name in names}
    counts = [np.bincount(positions[name], minlength=len(codebook)) for name in names]
    fitting = [name for name, own in zip(names, counts, strict=True) if _span(own)[1] <= MAX_SYMBOLS]
    if len(fitting) < len(names):
        return encode({name: tensors[name] for name in fitting})
    spans, histograms, table_of = _choose_tables(counts)
    tables = [quantize_counts(histogram) for histogram in histograms]
    words = _encode_stream([positions[name] for name in names], table_of, tables, spans)
    return CodedTensors(
        codebook=codebook.view(np.float32),
        tables=np.concatenate(tables) if tables else np.zeros(0, np.uint8),
        spans=np.array(spans, dtype=np.uint32).reshape(-1, 2),
        words=words,
        table_of=dict(zip(names, table_of, strict=True)),
    )


def quantize_counts(counts: IntArray) -> ByteArray:
    """Round counts `(num_symbols,)`, not all zero, to table bytes; the most frequent symbol gets 255."""
    scaled = counts / counts.max() * LEVELS[-1]
    return np.asarray(np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, scaled), dtype=np.uint8)


def frequencies(table: ByteArray) -> IntArray:
    """Expand a table's bytes to frequencies `(num_symbols,)` of at least 1 that sum to TOTAL.

    Raises:
        ValueError: every byte is zero, or the table is empty or longer than MAX_SYMBOLS.
    """
    num_symbols = len(table)
    weights = LEVELS[table]
    if not 0 < num_symbols <= MAX_SYMBOLS or not weights.any():
        raise ValueError(f"a table of {num_symbols} entries, of which {np.count_nonzero(weights)} are not zero")
    edges = np.concatenate([[0], np.cumsum(weights)])
    return np.asarray(np.diff(edges * (TOTAL - num_symbols) // edges[-1]) + 1, dtype=np.int64)


def _repeats(bits: BitArray) -> bool:
    """Whether values repeat at all, by a sample where the tensor is large."""
    sample = bits[:: len(bits) // SAMPLE] if len(bits) > 4 * SAMPLE else bits[:0]
    return len(np.unique(sample)) <= MAX_DISTINCT_SHARE * len(sample)


def worth_coding(tensors: Mapping[str, FloatArray], stored_bytes: int = 4) -> dict[str, BitArray]:
    """Select the tensors for which indices and their share of the codebook take less than they take as they are.

    Args:
        tensors: float32 arrays of any shape.
        stored_bytes: what a weight takes as it is.

    Returns:
        Their distinct bit patterns, ascending as uint32.
    """
    bits = {name: _bits(tensor) for name, tensor in tensors.items()}
    distinct = {name: np.unique(array) for name, array in bits.items() if _repeats(array)}
    candidates = {name: values for name, values in distinct.items() if 0 < len(values) <= MAX_SYMBOLS}
    everything, tensors_with_it = np.unique(
        np.concatenate([np.zeros(0, np.uint32), *candidates.values()]), return_counts=True
    )
    chosen = {}
    for name, values in candidates.items():
        shared_by = tensors_with_it[np.searchsorted(everything, values)]
        codebook_bytes = (CODEBOOK_ENTRY_BYTES / shared_by).sum()
        index_bytes = bits[name].size * np.log2(len(values)) / 8
        if codebook_bytes + index_bytes < stored_bytes * bits[name].size:
            chosen[name] = values
    return chosen


def _bits(tensor: FloatArray) -> BitArray:
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint32)


def _in_order_of_appearance(distinct: Sequence[BitArray]) -> BitArray:
    """Join the tensors' values, each once, where the first tensor has it; ascending as floats within a tensor.

    Tensors with a codebook of their own (other tools make those) thus span a short run of it.
    """
    if not distinct:
        return np.zeros(0, np.uint32)
    joined = np.concatenate([values[np.argsort(_total_order(values))] for values in distinct])
    _, first = np.unique(joined, return_index=True)
    return joined[np.sort(first)]


def _total_order(bits: BitArray) -> BitArray:
    """Map float32 bit patterns to integers in the order of their values, -0.0 before 0.0."""
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _positions(bits: BitArray, codebook: BitArray) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    """Look every weight up in the codebook."""
    order = np.argsort(codebook)
    narrow = order.astype(np.uint16 if len(codebook) <= 1 << 16 else np.uint32)
    found = np.empty(bits.shape, dtype=narrow.dtype)
    for start in range(0, len(bits), PIECE):
        piece = slice(start, start + PIECE)
        found[piece] = narrow[np.searchsorted(codebook, bits[piece], sorter=order)]
    return found


def _choose_tables(counts: Sequence[IntArray]) -> tuple[list[tuple[int, int]], list[IntArray], list[int]]:
    """Decide for each tensor, by bytes, between the shared table and an own one.

    Args:
        counts: int64 `(num_values,)` per tensor, not all zero.

    Returns:
        Span and histogram of each table, and each tensor's table.
    """
    shared = sum(counts, np.zeros(0, np.int64) if not counts else np.zeros_like(counts[0]))
    owns = [_prefers_own(own, shared) for own in counts]
    rest = sum((own for own, is_own in zip(counts, owns, strict=True) if not is_own), np.zeros_like(shared))
    if rest.any() and _span(rest)[1] > MAX_SYMBOLS:
        owns = [True] * len(counts)
    histograms = [] if all(owns) else [rest]
    table_of = []
    for own, is_own in zip(counts, owns, strict=True):
        table_of.append(len(histograms) if is_own else 0)
        if is_own:
            histograms.append(own)
    spans = [_span(histogram) for histogram in histograms]
    cut = [histogram[first : first + length] for histogram, (first, length) in zip(histograms, spans, strict=True)]
    return spans, cut, table_of


def _prefers_own(own: IntArray, shared: IntArray) -> bool:
    used = own > 0
    share_own, share_all = own[used] / own.sum(), shared[used] / shared.sum()
    saved_bits = float((own[used] * np.log2(share_own / share_all)).sum())
    length = _span(own)[1]
    return saved_bits / 8 > length + TABLE_BYTES


def _span(histogram: IntArray) -> tuple[int, int]:
    used = np.flatnonzero(histogram)
    return int(used[0]), int(used[-1] - used[0] + 1)


def _model(table: ByteArray) -> Any:
    """Build the coder's model; None for a single symbol, which needs no bits.

    constriction gives a symbol of share p the frequency 1 + p (TOTAL - num_symbols), by differences of rounded
    cumulative sums. Shares that are whole numbers with that very sum come through exactly, on any platform.
    """
    if len(table) == 1:
        return None
    return constriction.stream.model.Categorical((frequencies(table) - 1).astype(np.float64), perfect=False)


def _encode_stream(
    positions: Sequence[npt.NDArray[np.unsignedinteger]],
    table_of: Sequence[int],
    tables: Sequence[ByteArray],
    spans: Sequence[tuple[int, int]],
) -> BitArray:
    models = [_model(table) for table in tables]
    coder = AnsCoder()
    for array, table in zip(reversed(positions), reversed(table_of), strict=True):  # the coder is a stack
        model = models[table]
        if model is not None:
            for start in reversed(range(0, len(array), PIECE)):
                symbols = array[start : start + PIECE].astype(np.int32) - np.int32(spans[table][0])
                coder.encode_reverse(symbols, model)
    return np.asarray(coder.get_compressed(), dtype=np.uint32)
