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

    def bytes(self, length: int) -> np.ndarray:
        return np.frombuffer(self.take(length), "u1")

    def number(self) -> int:
        byte = self.take(1)[0]
        return byte if byte < 128 else byte - 128 + 128 * self.number()

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
    stream = Stream(tables, read_states(reader, lanes), reader.bytes(2 * num_words).view("<u2"))
    symbols = [decode_symbols(record, palettes, stream) for record in records]
    stored = Reader((stream.states - 65536).astype("<u2").tobytes() + body[reader.place :])
    tensors = {}
    for record, coded in zip(records, symbols, strict=True):
        record["bits"] = decode_elements(record, coded, palettes, stored, records)
        if record["role"] != PART:
            tensors["sigma/" * (record["role"] == SIGMA) + record["name"]] = to_numpy(record)
    return tensors, metadata


def read_header(header: Reader) -> tuple[dict, list[np.ndarray], list[np.ndarray], list[dict]]:
    """Read metadata, palettes, tables and one record per tensor."""
    metadata = json.loads(header.take(header.number()))
    num_palettes, num_tables, num_records = (header.number() for _ in range(3))
    sizes = [(header.number(), header.number()) for _ in range(num_palettes)]
    lengths = [header.number() for _ in range(num_tables)]
    planes = [header.bytes(size * length).reshape(size, length) for size, length in sizes]
    palettes = [np.ascontiguousarray(each.T).view(f"<u{len(each)}")[:, 0] for each in planes]
    tables = [header.bytes(length).astype(int) for length in lengths]
    records = [{"name": header.take(header.number()).decode()} for _ in range(num_records)]
    for field in ("role", "type", "kind"):
        for record, value in zip(records, header.take(num_records), strict=True):
            record[field] = value
    for record in records:
        record["shape"] = header.numbers()
    for record in records:
        kind = record["kind"]
        if kind == DEFLATED:
            record["length"] = header.number()
        elif kind == PLANES:
            record["planes"] = [header.number() for _ in range(SIZES[record["type"]])]
        elif kind >= PALETTE:
            record["palette"] = header.number() if kind != GROUPED else None
            record["part"], record["group"] = (header.number(), header.number()) if kind != PALETTE else (None, 1)
            record["kernel"] = header.number(), header.number()
            record["thresholds"], record["tables"] = header.numbers(), np.array(header.numbers(), int)
    return metadata, palettes, tables, records


def read_states(reader: Reader, lanes: int) -> np.ndarray:
    low = reader.bytes(2 * lanes).view("<u2").astype(int)
    pairs = reader.bytes(-(-lanes // 2)).astype(int)
    lengths = np.stack([pairs & 15, pairs >> 4], 1).reshape(-1)[:lanes]
    bits = np.unpackbits(reader.bytes(-(-lengths.sum() // 8))).astype(int)
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
    if record["kind"] < PALETTE:
        return None
    if not len(record["tables"]):
        return np.zeros(number, int)
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


def decode_elements(record: dict, coded, palettes: list[np.ndarray], stored: Reader, records: list[dict]) -> np.ndarray:
    number, size, kind = prod(record["shape"]), SIZES[record["type"]], record["kind"]
    if kind == STORED:
        return stored.bytes(number * size).view(f"<u{size}")
    if kind == DEFLATED:
        return np.frombuffer(zlib.decompress(stored.take(record["length"])), f"<u{size}")
    if kind == PLANES:
        planes = [stored.bytes(number) if each is None else each for each in coded]
        return np.stack(planes[::-1], 1).astype("u1").reshape(-1).view(f"<u{size}")
    if kind == PALETTE:
        return palettes[record["palette"]][coded]
    part = records[record["part"]]
    group = np.arange(number) // record["group"] % part["shape"][0]
    if kind == GROUPED:
        return part["bits"].reshape(part["shape"])[group, coded]
    return (palettes[record["palette"]][coded].view("<f4") * part["bits"].view("<f4")[group]).view("<u4")


def to_numpy(record: dict) -> np.ndarray:
    bits, kind = np.ascontiguousarray(record["bits"]), TYPES[record["type"]]
    values = (bits.astype("<u4") << 16).view("<f4") if kind == "bf16" else bits.view(kind)
    return (values.astype("<f4") if record["role"] == NARROWED else values).reshape(record["shape"])


if __name__ == "__main__":
    np.savez(sys.argv[2], **read(sys.argv[1])[0])
