"""Decodes an exported network with numpy alone: `python docs/decode.py MODEL.pwfn.safetensors OUT.npz`.

Format version 2 as a program (`docs/format.md` has the words), without code of pwfn's; trusts what has a true checksum.
"""

# ruff: noqa: D101, D102, D103
import hashlib
import json
import sys
import zlib
from math import prod

import numpy as np

TYPES = "<f4 <f2 <u2 <f8 <i8 <i4 <i2 i1 <u8 <u4 <u2 u1 ? u1 u1 u1 u1 u1 <c8".split()  # noqa: SIM905
BFLOAT16, UPPER_HALF = 2, np.uint32(65536)  # becomes float32; 8-bit floats stay bytes: numpy has neither
(STORED, DEFLATED, PLANES, PALETTE, SCALED, GROUPED, LINES), SIGMA, NARROWED = range(7), 2, 4


class Reader:  # takes numbers and bytes off a buffer
    def __init__(self, data: bytes) -> None:
        self.rest = np.frombuffer(data, "u1")

    def take(self, length: int) -> np.ndarray:
        found, self.rest = self.rest[:length].copy(), self.rest[length:]
        return found

    def number(self) -> int:
        byte = int(self.take(1)[0])
        return byte if byte < 128 else byte - 128 + 128 * self.number()

    def numbers(self, count: int | None = None) -> list[int]:
        return [self.number() for _ in range(self.number() if count is None else count)]


def read(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the tensors by name (sigmas under `sigma/NAME`), and the metadata."""
    file = np.fromfile(path, "u1").tobytes()
    body = file[8 + int.from_bytes(file[:8], "little") : -32]
    if hashlib.sha256(body).digest() != file[-32:] or body[0] != 2:
        raise ValueError(f"{path} is damaged, or not a pwfn file of version 2")
    reader = Reader(body[1:])
    header_bytes, _, lanes, num_words = reader.numbers(4)
    header = Reader(zlib.decompress(reader.take(header_bytes).tobytes()))
    metadata = json.loads(header.take(header.number()).tobytes())
    num_palettes, num_tables, num_records = header.numbers(3)
    sizes, lengths = [header.numbers(2) for _ in range(num_palettes)], header.numbers(num_tables)
    palettes = [header.take(size * n).reshape(size, n).T.copy().view(f"<u{size}")[:, 0] for size, n in sizes]
    tables = [header.take(length).astype(int) for length in lengths]
    records = [{"name": header.take(header.number()).tobytes().decode()} for _ in range(num_records)]
    for record, field in [(record, field) for field in ("role", "type", "kind") for record in records]:
        record[field] = int(header.take(1)[0])
    for record in records:
        record["shape"] = header.numbers()
        record["count"], record["size"] = prod(record["shape"]), np.dtype(TYPES[record["type"]]).itemsize
    for record in records:
        kind = record["kind"]
        record["length"] = header.number() if kind == DEFLATED else 0
        record["planes"] = header.numbers(record["size"]) if kind == PLANES else []
        if kind >= PALETTE:
            record["palette"] = header.number() if kind != GROUPED else None
            record["part"], record["group"] = header.numbers(2) if kind in (SCALED, GROUPED) else (None, 1)
            record["kernel"], record["thresholds"] = header.numbers(2), np.array(header.numbers(), int)
            record["tables"] = np.array(header.numbers(), int)
    low, pairs = reader.take(2 * lanes).view("<u2").astype(int), reader.take(-(-lanes // 2)).astype(int)
    lengths = np.stack([pairs & 15, pairs >> 4], 1).reshape(-1)[:lanes]
    upper = np.zeros((lanes, 15), int)
    upper[np.arange(15) < lengths[:, None]] = np.unpackbits(reader.take(-(-lengths.sum() // 8)))[: lengths.sum()]
    states = low + 65536 * ((1 << lengths) + (upper << np.arange(15)).sum(1))
    stream = Stream(tables, states, reader.take(2 * num_words).view("<u2"))
    for record in records:
        record["symbols"] = decode_symbols(record, palettes, stream)
    stored = Reader((states - 65536).astype("<u2").tobytes() + reader.rest.tobytes())
    tensors = {}
    for record in records:
        record["bits"] = bits = np.ascontiguousarray(elements(record, palettes, stored, records))
        values = (bits * UPPER_HALF).view("<f4") if record["type"] == BFLOAT16 else bits.view(TYPES[record["type"]])
        values = (values.astype("<f4") if record["role"] == NARROWED else values).reshape(record["shape"])
        tensors["sigma/" * (record["role"] == SIGMA) + record["name"]] = values
    tensors.pop("", None)  # parts of other tensors have no name
    return tensors, metadata


class Stream:  # lanes of 32-bit states that share one queue of 16-bit words
    def __init__(self, tables: list[np.ndarray], states: np.ndarray, words: np.ndarray) -> None:
        self.states, self.words, self.place = states, words.astype(int), 0
        self.frequency, self.start = np.zeros((2, len(tables), 256), int)
        for index, table in enumerate(tables):
            sums = np.cumsum(np.where(table < 8, table, 8 + table % 8 << np.maximum(table // 8, 1) - 1))
            used = np.cumsum(table > 0)
            ends = sums * (4096 - used[-1]) // sums[-1] + used
            self.frequency[index, : len(table)] = np.diff(ends, prepend=0)
            self.start[index, 1 : len(table)] = ends[:-1]
        self.symbol = np.array([np.repeat(np.arange(256), each) for each in self.frequency], int).reshape(-1, 4096)

    def decode(self, table: np.ndarray) -> np.ndarray:  # one symbol for each entry, dealt to the lanes in turn
        symbols = np.zeros(len(table), int)
        for first in range(0, len(table), max(len(self.states), 1)):
            own = table[first : first + len(self.states)]
            states = self.states[: len(own)]
            slots = states & 4095
            symbols[first : first + len(own)] = found = self.symbol[own, slots]
            states[:] = self.frequency[own, found] * (states >> 12) + slots - self.start[own, found]
            low = np.flatnonzero(states < 65536)
            states[low] = states[low] << 16 | self.words[self.place : self.place + len(low)]
            self.place += len(low)
        return symbols


def decode_symbols(record: dict, palettes: list[np.ndarray], stream: Stream) -> list | np.ndarray | None:
    if record["kind"] < PALETTE:
        return [stream.decode(np.full(record["count"], table - 1)) if table else None for table in record["planes"]]
    if not len(record["tables"]):
        return np.zeros(record["count"], int)
    if record["kind"] != GROUPED and len(palettes[record["palette"]]) > 256:
        high = stream.decode(np.full(record["count"], record["tables"][0]))
        return 256 * high + stream.decode(record["tables"][1:][high])
    (height, width), lines = record["kernel"], record["thresholds"]
    if record["kind"] == LINES:
        contexts = np.add.outer(lines[:height] * (1 + lines.max()), lines[height:])
        return stream.decode(record["tables"][contexts].reshape(-1))
    none = len(lines) + 1
    rows, classes = np.zeros((2, height * width, record["count"] // (height * width)), int)
    for position in range(height * width):
        left = classes[position - 1] if position % width else none + 0 * rows[0]
        above = (classes[position - width] if position >= width else none + 0 * rows[0]) * (height > 1)
        rows[position] = stream.decode(record["tables"][left * (width > 1) * (none + 1) ** (height > 1) + above])
        classes[position] = np.searchsorted(lines, rows[position], side="right")
    return rows.T.reshape(-1)


def elements(record: dict, palettes: list[np.ndarray], stored: Reader, records: list[dict]) -> np.ndarray:
    count, size, kind, symbols = (record[name] for name in ("count", "size", "kind", "symbols"))
    if kind in (STORED, DEFLATED):
        raw = stored.take(count * size if kind == STORED else record["length"]).tobytes()
        return np.frombuffer(raw if kind == STORED else zlib.decompress(raw), f"<u{size}")
    if kind == PLANES:
        planes = [stored.take(count) if plane is None else plane for plane in symbols]
        return np.stack(planes[::-1], 1).astype("u1").reshape(-1).view(f"<u{size}")
    if kind in (PALETTE, LINES):
        return palettes[record["palette"]][symbols]
    part = records[record["part"]]
    group = np.arange(count) // record["group"] % part["shape"][0]
    if kind == GROUPED:
        return part["bits"].reshape(part["shape"])[group, symbols]
    return (palettes[record["palette"]][symbols].view("<f4") * part["bits"].view("<f4")[group]).view("<u4")


if __name__ == "__main__":
    np.savez(sys.argv[2], **read(sys.argv[1])[0])
