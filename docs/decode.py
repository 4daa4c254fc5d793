"""Decodes an exported network with numpy alone: `python docs/decode.py MODEL.pwfn.safetensors OUT.npz`.

This is format version 2 as a program (`docs/format.md` says the same in words). It shares no code with pwfn. It trusts
its input after the checksum; `pwfn.load` also checks every size.
"""

import hashlib
import json
import sys
import zlib
from math import prod
from pathlib import Path

import numpy as np

TYPES = ("<f4", "<f2", "bf16", "<f8", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?",
         "u1", "u1", "u1", "u1", "u1", "<c8")  # fmt: skip
"""numpy's element types; bfloat16 becomes float32, and 8-bit floats stay bytes, since numpy has neither."""
SIZES = (4, 2, 2, 8, 8, 4, 2, 1, 8, 4, 2, 1, 1, 1, 1, 1, 1, 1, 8)
STORED, DEFLATED, PLANES, PALETTE, SCALED, GROUPED = range(6)
SIGMA, PART, NARROWED = 2, 3, 4


class Reader:
    """Takes numbers and bytes off a header."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, length: int) -> bytes:
        self.place += length
        return self.data[self.place - length : self.place]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def numbers(self) -> list[int]:
        return [self.number() for _ in range(self.number())]


def read(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the tensors by name (sigmas under `sigma/NAME`), and the metadata."""
    file = Path(path).read_bytes()
    body = file[8 + int.from_bytes(file[:8], "little") : -32]
    if hashlib.sha256(body).digest() != file[-32:] or body[0] != 2:
        raise ValueError(f"{path} is damaged, or not a pwfn file of version 2")
    reader = Reader(body)
    reader.take(1)
    header_bytes, _, lanes, num_words = (reader.number() for _ in range(4))
    header = Reader(zlib.decompress(reader.take(header_bytes)))
    metadata, palettes, tables, records = read_header(header)
    stream = Stream(tables, read_states(reader, lanes), np.frombuffer(reader.take(2 * num_words), "<u2"))
    symbols = [decode_symbols(record, palettes, stream) for record in records]
    stored = Reader((stream.states - 65536).astype("<u2").tobytes() + body[reader.place :])
    elements: list[np.ndarray] = []
    for record, coded in zip(records, symbols, strict=True):
        elements.append(decode_elements(record, coded, palettes, stored, elements, records))
    return {record["name"]: to_numpy(record, bits) for record, bits in zip(records, elements, strict=True)
            if record["role"] != PART}, metadata  # fmt: skip


def read_header(header: Reader) -> tuple[dict, list[np.ndarray], list[np.ndarray], list[dict]]:
    metadata = json.loads(header.take(header.number()))
    num_palettes, num_tables, num_records = (header.number() for _ in range(3))
    sizes = [(header.number(), header.number()) for _ in range(num_palettes)]
    lengths = [header.number() for _ in range(num_tables)]
    palettes = [np.frombuffer(header.take(size * length), "u1").reshape(size, length).T.copy().view(f"<u{size}")[:, 0]
                for size, length in sizes]  # fmt: skip
    tables = [np.frombuffer(header.take(length), "u1").astype(int) for length in lengths]
    names = [header.take(header.number()).decode() for _ in range(num_records)]
    roles, types, kinds = (list(header.take(num_records)) for _ in range(3))
    shapes = [header.numbers() for _ in range(num_records)]
    records = []
    for name, role, dtype, kind, shape in zip(names, roles, types, kinds, shapes, strict=True):
        record = {"name": "sigma/" * (role == SIGMA) + name, "role": role, "type": dtype, "kind": kind, "shape": shape}
        if kind == DEFLATED:
            record["length"] = header.number()
        elif kind == PLANES:
            record["planes"] = [header.number() for _ in range(SIZES[dtype])]
        elif kind >= PALETTE:
            record["palette"] = header.number() if kind != GROUPED else None
            record["part"], record["group"] = (header.number(), header.number()) if kind != PALETTE else (None, 1)
            record["kernel"] = header.number(), header.number()
            record["thresholds"], record["tables"] = header.numbers(), np.array(header.numbers(), int)
        records.append(record)
    return metadata, palettes, tables, records


def read_states(reader: Reader, lanes: int) -> np.ndarray:
    low = np.frombuffer(reader.take(2 * lanes), "<u2").astype(int)
    pairs = np.frombuffer(reader.take(-(-lanes // 2)), "u1")
    lengths = np.stack([pairs & 15, pairs >> 4], 1).reshape(-1)[:lanes].astype(int)
    bits = np.unpackbits(np.frombuffer(reader.take(-(-lengths.sum() // 8)), "u1")).astype(int)
    upper = np.zeros((lanes, 15), int)
    upper[np.arange(15) < lengths[:, None]] = bits[: lengths.sum()]
    return low + 65536 * ((1 << lengths) + (upper << np.arange(15)).sum(1))


class Stream:
    """Lanes of 32-bit states that share one queue of 16-bit words."""

    def __init__(self, tables: list[np.ndarray], states: np.ndarray, words: np.ndarray) -> None:
        self.states, self.words, self.place = states, words.astype(int), 0
        self.frequency, self.start = np.zeros((2, len(tables), 256), int)
        self.symbol = np.zeros((len(tables), 4096), int)
        for index, table in enumerate(tables):
            weights = np.where(table < 8, table, (8 + table % 8) << np.maximum(table // 8 - 1, 0))
            sums, used = np.cumsum(weights), np.cumsum(table > 0)
            ends = sums * (4096 - used[-1]) // sums[-1] + used
            self.start[index, 1 : len(table)] = ends[:-1]
            self.frequency[index, : len(table)] = np.diff(ends, prepend=0)
            self.symbol[index] = np.repeat(np.arange(len(table)), self.frequency[index, : len(table)])

    def decode(self, table: np.ndarray) -> np.ndarray:
        """Decode one symbol for each entry of `table`: entry i is lane i modulo the number of lanes."""
        symbols = np.zeros(len(table), int)
        for first in range(0, len(table), max(len(self.states), 1)):
            own = table[first : first + len(self.states)]
            states = self.states[: len(own)]
            slots = states & 4095
            found = self.symbol[own, slots]
            states[:] = self.frequency[own, found] * (states >> 12) + slots - self.start[own, found]
            low = states < 65536
            states[low] = states[low] << 16 | self.words[self.place : self.place + low.sum()]
            self.place += low.sum()
            symbols[first : first + len(own)] = found
        return symbols


def decode_symbols(record: dict, palettes: list[np.ndarray], stream: Stream) -> list | np.ndarray | None:
    number = prod(record["shape"])
    if record["kind"] == PLANES:
        return [stream.decode(np.full(number, table - 1)) if table else None for table in record["planes"]]
    if record["kind"] < PALETTE or not len(record["tables"]):
        return None if record["kind"] < PALETTE else np.zeros(number, int)
    if record["kind"] != GROUPED and len(palettes[record["palette"]]) > 256:
        high = stream.decode(np.full(number, record["tables"][0]))
        return 256 * high + stream.decode(record["tables"][1:][high])
    height, width = record["kernel"]
    none = len(record["thresholds"]) + 1
    rows, classes = np.zeros((2, height * width, number // (height * width)), int)
    for position in range(height * width):
        left = classes[position - 1] if position % width else np.full(rows.shape[1], none)
        above = classes[position - width] if position >= width else np.full(rows.shape[1], none)
        context = left * (width > 1) * ((none + 1) if height > 1 else 1) + above * (height > 1)
        rows[position] = stream.decode(record["tables"][context])
        classes[position] = np.searchsorted(record["thresholds"], rows[position], side="right")
    return rows.T.reshape(-1)


def decode_elements(record, coded, palettes, stored, elements, records):  # noqa: ANN001, ANN201
    number, size = prod(record["shape"]), SIZES[record["type"]]
    if record["kind"] == STORED:
        return np.frombuffer(stored.take(number * size), f"<u{size}")
    if record["kind"] == DEFLATED:
        return np.frombuffer(zlib.decompress(stored.take(record["length"])), f"<u{size}")
    if record["kind"] == PLANES:
        planes = [np.frombuffer(stored.take(number), "u1") if each is None else each for each in coded]
        return np.stack(planes[::-1], 1).astype("u1").reshape(-1).view(f"<u{size}")
    group = np.arange(number) // record["group"]
    if record["kind"] == GROUPED:
        part = elements[record["part"]].reshape(records[record["part"]]["shape"])
        return part[group % len(part), coded]
    values = palettes[record["palette"]][coded]
    if record["kind"] == PALETTE:
        return values
    scales = elements[record["part"]].view("<f4")
    return (values.view("<f4") * scales[group % len(scales)]).view("<u4")


def to_numpy(record: dict, bits: np.ndarray) -> np.ndarray:
    kind = TYPES[record["type"]]
    values = (bits.astype("<u4") << 16).view("<f4") if kind == "bf16" else np.ascontiguousarray(bits).view(kind)
    return (values.astype("<f4") if record["role"] == NARROWED else values).reshape(record["shape"])


if __name__ == "__main__":
    np.savez(sys.argv[2], **read(sys.argv[1])[0])
