"""Decodes an exported network with numpy alone: `python docs/decode.py MODEL.pwfn.safetensors OUT.npz`.

This is the format's documentation as a program (`docs/format.md` says the same in words). It shares no code with
pwfn. It trusts its input after the checksum; `pwfn.load` also checks every size, and is faster.
"""

import hashlib
import json
import sys
from bisect import bisect_right
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np

TOTAL = 1 << 24
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the tensors by name, and the metadata."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise ValueError(f"{path} is damaged, or not a pwfn file")
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = json.loads(header.pop("__metadata__")["pwfn"])
    tensors = {name: read_tensor(data[start:], entry) for name, entry in header.items()}
    own = {name: tensors.pop("pwfn." + name) for name in ("codebook", "tables", "spans", "words", "sha256")}
    return decode_layers(own, metadata["layers"] + metadata["sigmas"]) | tensors, metadata


def read_tensor(buffer: bytes, entry: dict) -> np.ndarray:
    """Cut one tensor out of the data that follow the header."""
    raw = buffer[slice(*entry["data_offsets"])]
    if entry["dtype"] == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(entry["shape"])
    return np.frombuffer(raw, DTYPES[entry["dtype"]]).reshape(entry["shape"])


def decode_layers(own: dict[str, np.ndarray], layers: list[dict]) -> dict[str, np.ndarray]:
    """Decode the coded layers, in order, from one stream."""
    lengths = own["spans"][:, 1].tolist()
    tables = np.split(own["tables"], np.cumsum(lengths)[:-1])
    stream = Stream(own["words"].tolist())
    weights = {}
    for layer in layers:
        if layer["table"] is not None:
            first, length = own["spans"][layer["table"]]
            positions = stream.decode(cumulated(tables[layer["table"]].tolist()), prod(layer["shape"]))
            weights[layer["name"]] = own["codebook"][first : first + length][positions].reshape(layer["shape"])
    return weights


def cumulated(table: list[int]) -> list[int]:
    """Expand a table's bytes to the lower ends of the symbols' intervals in [0, TOTAL), and TOTAL."""
    weights = [byte if byte < 16 else (16 + byte % 16) << (byte // 16 - 1) for byte in table]
    sums = list(accumulate(weights, initial=0))
    return [weight * (TOTAL - len(table)) // sums[-1] + symbol for symbol, weight in enumerate(sums)]


class Stream:
    """A stack of 32-bit words under a 64-bit state."""

    def __init__(self, words: list[int]) -> None:
        self.words = words
        self.state = 0
        self.refill()
        self.refill()

    def refill(self) -> None:
        """Keep the state at 2^32 or more, as long as there are words."""
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def decode(self, ends: list[int], num_symbols: int) -> np.ndarray:
        """Take symbols off the stack."""
        if len(ends) == 2:  # a single symbol takes no bits
            return np.zeros(num_symbols, dtype=np.intp)
        symbols = np.empty(num_symbols, dtype=np.intp)
        for place in range(num_symbols):
            quantile = self.state % TOTAL
            symbol = bisect_right(ends, quantile) - 1
            symbols[place] = symbol
            self.state = (self.state >> 24) * (ends[symbol + 1] - ends[symbol]) + quantile - ends[symbol]
            self.refill()
        return symbols


if __name__ == "__main__":
    np.savez(sys.argv[2], **read(sys.argv[1])[0])
