"""What stands in a file's header: palettes, tables and one record per tensor, to bytes and back (`docs/format.md`).

Columns rather than rows (all names, then all types, ...) because those deflate better. Reading trusts nothing: every
count is compared with the bytes that are left before anything is made of it. Takes
nothing but Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Literal

from pwfn.export.rules import MAX_SYMBOLS

DTYPES = (
    "F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL",
    "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64",
)  # fmt: skip
"""Element types by safetensors' names; a record holds the index."""
SIZES = (4, 2, 2, 8, 8, 4, 2, 1, 8, 4, 2, 1, 1, 1, 1, 1, 1, 1, 8)
"""Bytes of an element of each type."""
MAX_DIMENSIONS = 16
MAX_SIZE = 1 << 48
MAX_VALUES = 1 << 16
"""Longest palette."""
MAX_KERNEL = 128
"""Most positions of a kernel: each is a step of its own."""
MAX_LINE_CLASSES = 16
"""Most classes of rows, and of columns: a byte holds every pair."""

FORMATS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Formats of memory that hold elements of so many bytes."""


class Role(IntEnum):
    """What a tensor is to the network."""

    REST = 0
    """Outside the fixed set."""
    FIXED = 1
    """In the fixed set."""
    SIGMA = 2
    """The posterior's sigma of the weight of that name."""
    PART = 3
    """No tensor of the network, but scales or palettes of a later one; it has no name."""
    NARROWED = 4
    """Outside the fixed set, float32, stored in half precision: a reader widens it."""


class Kind(IntEnum):
    """How a tensor is coded."""

    STORED = 0
    DEFLATED = 1
    PLANES = 2
    PALETTE = 3
    SCALED = 4
    GROUPED = 5
    LINES = 6
    """PALETTE in the context of rows and columns instead of neighbours."""


@dataclass(frozen=True)
class Coding:
    """How one tensor is coded; the fields that its kind does not use keep their defaults."""

    kind: Kind
    num_bytes: int = 0
    """DEFLATED: length of the deflated bytes."""
    planes: tuple[int, ...] = ()
    """PLANES: per byte of an element, from the most significant one, its table plus 1, or 0 where it is stored."""
    palette: int = 0
    """PALETTE, SCALED, LINES: the palette of the values, or of what the scales multiply."""
    part: int = 0
    """SCALED, GROUPED: the record of the scales `(num_groups,)`, or of the palettes `(num_groups, num_values)`."""
    group: int = 1
    """SCALED, GROUPED: element i belongs to group `i // group % num_groups`."""
    kernel: tuple[int, int] = (1, 1)
    """Height and width of the kernels into which the elements are cut, row-major; LINES: of the one matrix."""
    thresholds: tuple[int, ...] = ()
    """Class of a neighbour: how many of these its symbol reaches."""
    classes: bytes = b""
    """LINES: the class of each row, then of each column, a byte each."""
    tables: tuple[int, ...] = ()
    """Table of each context."""

    @property
    def num_classes(self) -> int:
        """Classes of a neighbour, beside none."""
        return len(self.thresholds) + 1

    @property
    def num_line_classes(self) -> int:
        """LINES: classes of a row, and of a column; each pair of them has a table."""
        return max(self.classes, default=0) + 1

    @property
    def num_positions(self) -> int:
        """Positions of a kernel, each a batch of its own."""
        return 1 if self.kind == Kind.LINES else self.kernel[0] * self.kernel[1]

    @property
    def num_contexts(self) -> int:
        """How a symbol's neighbours, or its row and column, can look."""
        if self.kind == Kind.LINES:
            return self.num_line_classes**2
        height, width = self.kernel
        return int((self.num_classes + 1) ** ((height > 1) + (width > 1)))


@dataclass(frozen=True)
class Record:
    """One tensor."""

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    coding: Coding

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return prod(self.shape)

    @property
    def element_bytes(self) -> int:
        """Bytes of an element."""
        return SIZES[DTYPES.index(self.dtype)]


@dataclass(frozen=True)
class Layout:
    """A whole header.

    `metadata` is JSON; `palettes` hold bit patterns, uint8 to uint64 by the size of their elements.
    """

    metadata: str
    palettes: tuple[memoryview, ...]
    tables: tuple[bytes, ...]
    records: tuple[Record, ...]


def write_layout(layout: Layout) -> bytes:
    """Turn a header into bytes."""
    text = layout.metadata.encode()
    parts = [
        number(len(text)),
        text,
        number(len(layout.palettes)),
        number(len(layout.tables)),
        number(len(layout.records)),
    ]
    parts += [number(item) for palette in layout.palettes for item in (palette.itemsize, len(palette))]
    parts += [number(len(table)) for table in layout.tables]
    parts += [_planes(palette) for palette in layout.palettes]
    parts += layout.tables
    records = layout.records
    for record in records:
        name = record.name.encode()
        parts += [number(len(name)), name]
    parts.append(bytes(record.role for record in records))
    parts.append(bytes(DTYPES.index(record.dtype) for record in records))
    parts.append(bytes(record.coding.kind for record in records))
    parts += [number(item) for record in records for item in (len(record.shape), *record.shape)]
    parts += [number(item) for record in records for item in _coding_numbers(record.coding)]
    return b"".join(parts)


def read_layout(data: bytes) -> Layout:
    """Read a header.

    Raises:
        ValueError: it is not one.
    """
    reader = _Reader(data)
    metadata = reader.text()
    num_palettes, num_tables, num_records = reader.count(), reader.count(), reader.count()
    sizes = [(reader.one_of((1, 2, 4, 8)), reader.number(MAX_VALUES)) for _ in range(num_palettes)]
    lengths = [reader.number(MAX_SYMBOLS) for _ in range(num_tables)]
    palettes = tuple(reader.palette(size, length) for size, length in sizes)
    tables = tuple(reader.bytes(length) for length in lengths)
    names = [reader.text() for _ in range(num_records)]
    roles = [Role(code) for code in reader.bytes(num_records)]
    dtypes = [DTYPES[reader.below(code, len(DTYPES))] for code in reader.bytes(num_records)]
    kinds = [Kind(code) for code in reader.bytes(num_records)]
    shapes = [tuple(reader.numbers(MAX_DIMENSIONS, MAX_SIZE)) for _ in range(num_records)]
    codings = [reader.coding(kind, dtype) for kind, dtype in zip(kinds, dtypes, strict=True)]
    reader.finish()
    records = tuple(map(Record, names, roles, dtypes, shapes, codings))
    layout = Layout(metadata, palettes, tables, records)
    _check(layout)
    return layout


def number(value: int) -> bytes:
    """Write a whole number: seven bits a byte, lowest first, the top bit set on all bytes but the last."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _planes(palette: memoryview) -> bytes:
    """All lowest bytes, then all second ones, ...: alike ones lie together."""
    data = palette.tobytes()
    return b"".join(data[place :: palette.itemsize] for place in range(palette.itemsize))


def _coding_numbers(coding: Coding) -> Sequence[int]:
    if coding.kind == Kind.STORED:
        return ()
    if coding.kind == Kind.DEFLATED:
        return (coding.num_bytes,)
    if coding.kind == Kind.PLANES:
        return coding.planes
    source = {
        Kind.PALETTE: (coding.palette,),
        Kind.LINES: (coding.palette,),
        Kind.SCALED: (coding.palette, coding.part, coding.group),
        Kind.GROUPED: (coding.part, coding.group),
    }[coding.kind]
    classes = coding.classes or coding.thresholds
    return (*source, *coding.kernel, len(classes), *classes, len(coding.tables), *coding.tables)


class _Reader:
    """Takes numbers and bytes off the header, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def bytes(self, length: int) -> bytes:
        if length > len(self._data) - self._place:
            raise ValueError("the header ends too early")
        self._place += length
        return self._data[self._place - length : self._place]

    def number(self, largest: int) -> int:
        value = shift = 0
        for byte in self._data[self._place : self._place + 9]:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        else:
            raise ValueError("the header ends too early, or has a number that is too long")
        if value > largest:
            raise ValueError(f"the header has a number above {largest}")
        self._place += shift // 7
        return value

    def count(self) -> int:
        """A number of things, each of which takes a byte at least."""
        return self.number(len(self._data) - self._place)

    def numbers(self, most: int, largest: int) -> list[int]:
        length = self.number(most)
        short = self._data[self._place : self._place + length]
        if short.isascii() and len(short) == length:  # a byte each: most are
            if length and max(short) > largest:
                raise ValueError(f"the header has a number above {largest}")
            self._place += length
            return list(short)
        return [self.number(largest) for _ in range(length)]

    def one_of(self, allowed: tuple[int, ...]) -> int:
        value = self.number(max(allowed))
        if value not in allowed:
            raise ValueError(f"the header has {value} where {allowed} are possible")
        return value

    def below(self, value: int, limit: int) -> int:
        if value >= limit:
            raise ValueError(f"the header has {value} where less than {limit} is possible")
        return value

    def text(self) -> str:
        return self.bytes(self.count()).decode()

    def palette(self, size: int, length: int) -> memoryview:
        planes, found = self.bytes(size * length), bytearray(size * length)
        for place in range(size):
            found[place::size] = planes[place * length : (place + 1) * length]
        return memoryview(found).cast(FORMATS[size])

    def coding(self, kind: Kind, dtype: str) -> Coding:
        most = len(self._data)
        if kind == Kind.STORED:
            return Coding(kind)
        if kind == Kind.DEFLATED:
            return Coding(kind, num_bytes=self.number(MAX_SIZE))
        if kind == Kind.PLANES:
            return Coding(kind, planes=tuple(self.number(most) for _ in range(SIZES[DTYPES.index(dtype)])))
        palette = 0 if kind == Kind.GROUPED else self.number(most)
        has_part = kind in (Kind.SCALED, Kind.GROUPED)
        part, group = (self.number(most), self.number(MAX_SIZE)) if has_part else (0, 1)
        lines = kind == Kind.LINES
        longest = MAX_SIZE if lines else MAX_KERNEL
        kernel = self.number(longest), self.number(longest)
        classes = self.numbers(most, MAX_LINE_CLASSES - 1) if lines else self.numbers(MAX_SYMBOLS, MAX_SYMBOLS)
        tables = tuple(self.numbers(most, most))
        if lines:
            return Coding(kind, palette=palette, kernel=kernel, classes=bytes(classes), tables=tables)
        return Coding(
            kind, palette=palette, part=part, group=group, kernel=kernel, thresholds=tuple(classes), tables=tables
        )

    def finish(self) -> None:
        if self._place != len(self._data):
            raise ValueError("the header goes on after its last record")


def _check(layout: Layout) -> None:
    """Compare every reference with what it refers to."""
    names = [(record.name, record.role == Role.SIGMA) for record in layout.records if record.role != Role.PART]
    if len(set(names)) < len(names):
        raise ValueError("a tensor appears twice")
    for place, record in enumerate(layout.records):
        coding = record.coding
        if any(table > len(layout.tables) for table in coding.planes):
            raise ValueError(f"tensor {record.name!r} has a table that is not there")
        if coding.kind >= Kind.PALETTE:
            _check_palette(layout, place, record)


def _check_palette(layout: Layout, place: int, record: Record) -> None:
    coding = record.coding
    height, width = coding.kernel
    num_values = _num_values(layout, place, record)
    wide = num_values > MAX_SYMBOLS
    if coding.kind == Kind.LINES:
        wrong = (
            num_values not in range(2, MAX_SYMBOLS + 1)
            or record.num_elements != height * width
            or len(coding.classes) != height + width
        )
    else:
        wrong = (
            not num_values
            or height * width not in range(1, MAX_KERNEL + 1)
            or record.num_elements % (height * width) != 0
            or coding.group < 1
            or list(coding.thresholds) != sorted(coding.thresholds)
            or (wide and (coding.kernel != (1, 1) or len(coding.thresholds) > 0))
        )
    if wrong:
        raise ValueError(f"tensor {record.name!r} is coded in a way that does not exist")
    num_high = -(-num_values // MAX_SYMBOLS)
    limits = [num_high] + [MAX_SYMBOLS] * num_high if wide else [num_values] * coding.num_contexts
    limits = limits if num_values > 1 else []
    fits = len(coding.tables) == len(limits) and all(
        table < len(layout.tables) and len(layout.tables[table]) <= limit
        for table, limit in zip(coding.tables, limits, strict=True)
    )
    if not fits:
        raise ValueError(f"tensor {record.name!r} has a table that is not there or too long")


def _num_values(layout: Layout, place: int, record: Record) -> int:
    """Values of the palette that a tensor's symbols stand for, 0 where it does not fit."""
    coding = record.coding
    if coding.kind in (Kind.SCALED, Kind.GROUPED):
        if coding.part >= place:
            return 0
        part = layout.records[coding.part]
        if part.role != Role.PART or part.dtype != record.dtype or not part.num_elements:
            return 0
        if coding.kind == Kind.GROUPED:
            return part.shape[1] if len(part.shape) == 2 and part.shape[1] <= MAX_SYMBOLS else 0
        if record.dtype != "F32" or len(part.shape) != 1:
            return 0
    if coding.palette >= len(layout.palettes) or layout.palettes[coding.palette].itemsize != record.element_bytes:
        return 0
    return len(layout.palettes[coding.palette])


def num_steps(layout: Layout, num_lanes: int) -> int:
    """Count the steps that decoding takes: what bounds its time, whatever a file says."""
    steps = 0
    for record in layout.records:
        coding, number = record.coding, record.num_elements
        if coding.kind == Kind.PLANES:
            steps += sum(map(bool, coding.planes)) * -(-number // max(num_lanes, 1))
        elif coding.kind >= Kind.PALETTE and coding.tables:
            positions = coding.num_positions
            steps += 2 * positions * -(-number // positions // max(num_lanes, 1))
    return steps


def stored_bytes(record: Record) -> int:
    """How many stored bytes belong to a record."""
    coding = record.coding
    if coding.kind == Kind.STORED:
        return record.num_elements * record.element_bytes
    if coding.kind == Kind.PLANES:
        return coding.planes.count(0) * record.num_elements
    return coding.num_bytes if coding.kind == Kind.DEFLATED else 0


def check_groups(record: Record, num_groups: int) -> None:
    """Refuse groups that do not divide a tensor.

    Raises:
        ValueError: names the tensor.
    """
    if record.num_elements % (num_groups * record.coding.group):
        raise ValueError(f"tensor {record.name!r} cannot be cut into its groups")
