"""Tensors of any kind to records, palettes, tables and one stream, each coded in the way that takes the fewest bytes.

The ways: a palette that tensors share, levels times a scale per group, a palette per group, entropy-coded bytes of
floats, deflated bytes, bytes as they are. Palettes' symbols are coded in the context of their neighbours inside the
kernel, and contexts of all tensors share tables. `docs/format.md` gives the byte layout, `docs/decode.py` a second,
independent decoder.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pwfn.export.contexts import class_of_symbol, contexts_at, cut, kernel_of, thresholds_for
from pwfn.export.grids import Grouped, Scaled, find_grouped, find_scaled, groupings
from pwfn.export.layout import DTYPES, MAX_KERNEL, SIZES, Coding, Kind, Layout, Record, Role
from pwfn.export.lines import count_contexts, find_classes
from pwfn.export.palettes import distinct_bits, distinct_values, join_palettes, look_up
from pwfn.export.rans import ByteArray, PaletteArray, quantize_counts
from pwfn.export.rules import MAX_SYMBOLS
from pwfn.export.stream import Stream, Symbols, encode_stream
from pwfn.export.tables import TABLE_BYTES, choose_tables, code_bits

FLOATS = ("F64", "F32", "F16", "BF16")
FLOAT_SHARE = 0.87
"""Share of a float's bytes that is left where its bytes are coded: sign and exponent take about half a byte."""
ENTRY_BYTES = 0.7
"""What a value costs in a table, beside its bytes in the palette."""
GROUPED_FROM = 128
"""Distinct values up to which no scale or palette per group is looked for: a few groups of 16 values have more."""
MIN_PLANE = 4096
"""Elements from which a byte plane is judged by its own entropy; smaller tensors code the sign and exponent only."""
MAX_PLANE_SHARE = 0.97
"""Share of its bytes that a coded byte plane may take; above it is stored, which is faster."""
MIN_DEFLATED = 256
"""Bytes from which a tensor is worth deflating by itself."""
DEFLATE_SAMPLE = 1 << 14
"""Bytes of a tensor that are deflated to see whether it has a structure that only deflation finds."""
DEFLATE_MARGIN = 1.05
"""How much longer than ours the deflated sample may be for the whole tensor to be deflated."""


@dataclass(frozen=True)
class Item:
    """One tensor: `bits` is uint8 to uint64, flat, row-major."""

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    bits: PaletteArray


@dataclass
class _Draft:
    """A tensor on its way: what it is coded as, and of that what is known."""

    item: Item
    kind: Kind = Kind.STORED
    distinct: PaletteArray | None = None
    """PALETTE, SCALED: the values, ascending as whole numbers."""
    bits: PaletteArray | None = None
    """PALETTE, SCALED: the elements or levels to look up in the palette."""
    symbols: Symbols = None
    part: int = 0
    group: int = 1
    palette: int = 0
    num_values: int = 0
    planes: list[bool] = field(default_factory=list)
    kernel: tuple[int, int] = (1, 1)
    thresholds: tuple[int, ...] = ()
    classes: bytes = b""
    tables: tuple[int, ...] = ()
    coded_bytes: float = 0.0
    """What its symbols take at the entropy of their contexts."""
    stored: bytes = b""


def encode(items: Sequence[Item], metadata: str, *, deflate_all: bool = False) -> tuple[Layout, Stream]:
    """Code tensors; every one comes back to the bit.

    Args:
        items: with names that differ within the sigmas and within the rest.
        metadata: JSON that the header carries.
        deflate_all: deflate every tensor, as zip does, whatever else could be done.
    """
    drafts: list[_Draft] = []
    for item in items:
        drafts += [_Draft(item, Kind.DEFLATED)] if deflate_all else _draft(item, len(drafts))
    palettes = _share_palettes(drafts)
    for draft in drafts:
        _prepare(draft, palettes)
    _leave_small_planes(drafts)
    tables = _share_tables(drafts)
    for draft in drafts:
        _fall_back(draft)
    tables = _used_tables(drafts, tables)
    layout = Layout(
        metadata,
        tuple(palette.data for palette in palettes),
        tuple(quantize_counts(table).tobytes() for table in tables),
        tuple(map(_record, drafts)),
    )
    stored = b"".join(draft.stored for draft in drafts)
    symbols = [draft.symbols for draft in drafts]
    drafts.clear()  # their stored bytes take as much as a network that shares nothing
    return layout, encode_stream(layout, symbols, stored)


def _draft(item: Item, place: int) -> list[_Draft]:
    """Choose a way by estimated bytes; a way with parts puts them before the tensor, from `place` on."""
    size, bits = SIZES[DTYPES.index(item.dtype)], item.bits
    if not bits.size:
        return [_Draft(item)]
    distinct = distinct_values(bits)
    best = bits.size * size * (FLOAT_SHARE if item.dtype in FLOATS else 1)
    found = [_Draft(item, Kind.PLANES)]
    if distinct is not None:
        cost = _palette_bytes(len(distinct), bits.size, size)
        if cost < best or len(distinct) == 1:
            best, found = cost, [_palette_draft(item, distinct)]
    if distinct is None or len(distinct) > GROUPED_FROM:
        for cost, drafts in _grouped_drafts(item, place):
            if cost < best:
                best, found = cost, drafts
    return found


def _palette_draft(item: Item, distinct: PaletteArray) -> _Draft:
    classes = find_classes(item.bits, item.dtype, item.shape, distinct)
    if classes is None:
        return _Draft(item, Kind.PALETTE, distinct=distinct, bits=item.bits)
    kernel = (item.shape[0], item.bits.size // item.shape[0])
    return _Draft(item, Kind.LINES, distinct=distinct, bits=item.bits, kernel=kernel, classes=classes)


def _palette_bytes(num_values: int, num_elements: int, size: int) -> float:
    return float(num_values * (size + ENTRY_BYTES) + num_elements * np.log2(max(num_values, 1)) / 8)


def _grouped_drafts(item: Item, place: int) -> list[tuple[float, list[_Draft]]]:
    """Ways with a scale or a palette per group, and their estimated bytes."""
    found: list[tuple[float, list[_Draft]]] = []
    size = item.bits.itemsize
    for num_groups, group in groupings(item.shape):
        if item.dtype == "F32" and (scaled := find_scaled(item.bits.view(np.float32), num_groups, group)):
            found.append(_scaled_draft(item, place, scaled))
        elif size > 1 and (grouped := find_grouped(item.bits, num_groups, group)):
            cost = grouped.palettes.nbytes + item.bits.size * np.log2(max(grouped.palettes.shape[1], 2)) / 8
            found.append((cost, _grouped_draft(item, place, grouped)))
    return found


def _scaled_draft(item: Item, place: int, scaled: Scaled) -> tuple[float, list[_Draft]]:
    part = Item("", Role.PART, "F32", (len(scaled.scales),), scaled.scales.view(np.uint32))
    bits = scaled.levels.view(np.uint32)
    levels = distinct_bits(bits)
    draft = _Draft(item, Kind.SCALED, distinct=levels, bits=bits, group=scaled.group)
    parts = _draft(part, place)
    draft.part = place + len(parts) - 1
    return scaled.scales.nbytes + _palette_bytes(len(levels), bits.size, 1), [*parts, draft]


def _grouped_draft(item: Item, place: int, grouped: Grouped) -> list[_Draft]:
    palettes = grouped.palettes
    part = Item("", Role.PART, item.dtype, palettes.shape, np.ascontiguousarray(palettes).reshape(-1))
    draft = _Draft(item, Kind.GROUPED, symbols=grouped.symbols, group=grouped.group, num_values=palettes.shape[1])
    draft.part = place
    return [_Draft(part, Kind.PLANES), draft]


def _share_palettes(drafts: Sequence[_Draft]) -> list[PaletteArray]:
    palettes: list[PaletteArray] = []
    sharers: dict[tuple[str, bool], list[_Draft]] = {}
    for draft in drafts:
        if draft.distinct is not None:
            sharers.setdefault((draft.item.dtype, draft.kind == Kind.SCALED), []).append(draft)
    for (dtype, _), own in sorted(sharers.items()):
        joined, palette_of = join_palettes([draft.distinct for draft in own if draft.distinct is not None], dtype)
        for draft, palette in zip(own, palette_of, strict=True):
            draft.palette = len(palettes) + palette
        palettes += joined
    return palettes


def _prepare(draft: _Draft, palettes: Sequence[PaletteArray]) -> None:
    """Find the symbols, the kernel and the classes of neighbours, or the byte planes."""
    if draft.bits is not None:
        palette = palettes[draft.palette]
        draft.num_values = len(palette)
        draft.symbols = look_up(draft.bits, palette)
        draft.bits = None
    if draft.kind == Kind.PLANES:
        draft.planes = _planes_to_code(draft.item)
        return
    if draft.kind == Kind.LINES and draft.num_values > MAX_SYMBOLS:
        draft.kind, draft.kernel, draft.classes = Kind.PALETTE, (1, 1), b""
    if draft.kind == Kind.LINES or not isinstance(draft.symbols, np.ndarray) or not 1 < draft.num_values <= MAX_SYMBOLS:
        return
    kernel = kernel_of(draft.item.shape)
    if 1 < kernel[0] * kernel[1] <= MAX_KERNEL:
        histogram = np.bincount(draft.symbols, minlength=draft.num_values)
        draft.thresholds = thresholds_for(histogram, kernel)
        draft.kernel = kernel if draft.thresholds else (1, 1)


def plane(bits: PaletteArray, place: int) -> ByteArray:
    """Return one byte of every element, 0 the most significant."""
    return bits.view(np.uint8)[bits.itemsize - 1 - place :: bits.itemsize]


def _planes_to_code(item: Item) -> list[bool]:
    found = []
    for place in range(item.bits.itemsize):
        counts = np.bincount(plane(item.bits, place), minlength=MAX_SYMBOLS)
        if item.dtype in FLOATS and item.bits.size < MIN_PLANE:
            found.append(place == 0)
        else:
            cost = code_bits(counts[None])[0] / 8 + ENTRY_BYTES * np.count_nonzero(counts)
            found.append(bool(cost < MAX_PLANE_SHARE * item.bits.size))
    return found


def _leave_small_planes(drafts: Sequence[_Draft]) -> None:
    """Store the signs and exponents of small tensors as they are where their table would take more than it saves."""
    small = [draft for draft in drafts if draft.kind == Kind.PLANES and draft.item.bits.size < MIN_PLANE]
    counts = sum((rows for draft in small for rows in _histograms(draft)), np.zeros((1, MAX_SYMBOLS), np.float32))
    if counts.sum() - code_bits(counts)[0] / 8 < TABLE_BYTES + ENTRY_BYTES * np.count_nonzero(counts):
        for draft in small:
            draft.planes = [False] * len(draft.planes)


def _share_tables(drafts: Sequence[_Draft]) -> list[npt.NDArray[np.int64]]:
    """Choose tables for the contexts of all tensors whose symbols have as many values."""
    histograms: dict[int, list[npt.NDArray[np.float32]]] = {}
    places: dict[int, list[tuple[_Draft, int]]] = {}
    for draft in drafts:
        for counts in _histograms(draft):
            draft.coded_bytes += code_bits(counts).sum() / 8
            histograms.setdefault(counts.shape[1], []).append(counts)
            places.setdefault(counts.shape[1], []).append((draft, len(counts)))
    tables: list[npt.NDArray[np.int64]] = []
    for num_symbols, rows in sorted(histograms.items()):
        own, table_of = choose_tables(np.concatenate(rows))
        ends = np.cumsum([count for _, count in places[num_symbols]])
        for (draft, count), end in zip(places[num_symbols], ends, strict=True):
            draft.tables += tuple((table_of[end - count : end] + len(tables)).tolist())
        tables += own
    return tables


def _histograms(draft: _Draft) -> list[npt.NDArray[np.float32]]:
    """Counts `(num_contexts, num_symbols)` of everything that is coded of a tensor, in the order of its tables."""
    if draft.kind == Kind.PLANES:
        chosen = [place for place, coded in enumerate(draft.planes) if coded]
        return [
            np.bincount(plane(draft.item.bits, place), minlength=MAX_SYMBOLS).astype(np.float32)[None]
            for place in chosen
        ]
    if not isinstance(draft.symbols, np.ndarray) or draft.num_values < 2:
        return []
    if draft.num_values > MAX_SYMBOLS:
        num_high = -(-draft.num_values // MAX_SYMBOLS)
        counts = np.bincount(draft.symbols, minlength=num_high * MAX_SYMBOLS).reshape(num_high, MAX_SYMBOLS)
        return [counts.sum(axis=1, dtype=np.float32)[None], counts.astype(np.float32)]
    coding = _coding(draft)
    if draft.kind == Kind.LINES:
        return [count_contexts(draft.symbols.view(np.uint8), coding, draft.num_values).astype(np.float32)]
    rows = cut(draft.symbols.view(np.uint8), draft.kernel)
    classes = class_of_symbol(coding)[rows]
    counts = np.zeros((coding.num_contexts, draft.num_values), dtype=np.int64)
    for position in range(len(rows)):
        contexts = np.asarray(contexts_at(classes, position, coding), np.intp)
        places = contexts * draft.num_values + rows[position]
        counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
    return [counts.astype(np.float32)]


def _coding(draft: _Draft) -> Coding:
    planes = iter(draft.tables)
    return Coding(
        draft.kind,
        num_bytes=len(draft.stored) if draft.kind == Kind.DEFLATED else 0,
        planes=tuple(next(planes) + 1 if coded else 0 for coded in draft.planes),
        palette=draft.palette,
        part=draft.part,
        group=draft.group,
        kernel=draft.kernel,
        thresholds=draft.thresholds,
        classes=draft.classes,
        tables=() if draft.kind == Kind.PLANES else draft.tables,
    )


def _fall_back(draft: _Draft) -> None:
    """Deflate a tensor where that takes fewer bytes; then fill in what is stored."""
    bits = draft.item.bits
    if draft.kind == Kind.DEFLATED or (draft.kind in (Kind.PALETTE, Kind.LINES, Kind.PLANES) and _deflates_well(draft)):
        draft.kind, draft.symbols, draft.planes, draft.tables = Kind.DEFLATED, None, [], ()
        draft.stored = zlib.compress(bits.tobytes(), 9)
    elif draft.kind == Kind.PLANES and any(draft.planes):
        coded = [plane(bits, place) for place in range(bits.itemsize)]
        draft.symbols = [each if chosen else None for each, chosen in zip(coded, draft.planes, strict=True)]
        draft.stored = b"".join(each.tobytes() for each, chosen in zip(coded, draft.planes, strict=True) if not chosen)
    elif draft.kind in (Kind.PLANES, Kind.STORED):
        draft.kind, draft.planes = Kind.STORED, []
        draft.stored = bits.tobytes()


def _deflates_well(draft: _Draft) -> bool:
    bits = draft.item.bits
    ours = draft.coded_bytes + draft.planes.count(False) * bits.size
    if draft.distinct is not None:
        ours += draft.distinct.nbytes
    sample = bits[: DEFLATE_SAMPLE // bits.itemsize]
    if (
        sample.nbytes < MIN_DEFLATED
        or len(zlib.compress(sample.tobytes())) * bits.size > DEFLATE_MARGIN * ours * sample.size
    ):
        return False
    return bool(len(zlib.compress(bits.tobytes(), 9)) < ours)


def _used_tables(drafts: Sequence[_Draft], tables: Sequence[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """Leave out the tables of tensors that are deflated after all."""
    used = sorted({table for draft in drafts for table in draft.tables})
    place = {table: index for index, table in enumerate(used)}
    for draft in drafts:
        draft.tables = tuple(place[table] for table in draft.tables)
    return [tables[table] for table in used]


def _record(draft: _Draft) -> Record:
    item = draft.item
    return Record(item.name, item.role, item.dtype, item.shape, _coding(draft))
