"""What the encoder found, to a file's bytes (`docs/format.md`)."""

from __future__ import annotations

import zlib

from pwfn.export.container import (
    BYTES_PER_TABLE,
    ELEMENTS_PER_BYTE,
    FORMAT_VERSION,
    HEADER_PER_BYTE,
    HEADER_ROOM,
    STEP_ROOM,
    STEPS_PER_BYTE,
    TABLE_ROOM,
    envelop,
)
from pwfn.export.layout import Layout, num_steps, number, write_layout
from pwfn.export.rans import pack_states
from pwfn.export.stream import Stream


def pack(layout: Layout, stream: Stream) -> bytes:
    """Write a file; the same contents give the same bytes."""
    raw = write_layout(layout)
    header = zlib.compress(raw, 9)
    numbers = [len(header), len(raw), len(stream.states), len(stream.words)]
    rest = memoryview(stream.stored)[2 * len(stream.states) :]
    parts: list[bytes | memoryview] = [
        bytes([FORMAT_VERSION]),
        *map(number, numbers),
        header,
        pack_states(stream.states),
    ]
    parts += [stream.words.astype("<u2").tobytes(), rest]
    missing = _least_size(layout, len(raw), len(stream.states)) - sum(map(len, parts))
    return envelop(*parts, b"\0" * max(missing, 0))


def _least_size(layout: Layout, header: int, num_lanes: int) -> int:
    """Bytes that a reader wants to see before it believes the header's sizes."""
    elements = sum(record.num_elements for record in layout.records)
    return max(
        -(-elements // ELEMENTS_PER_BYTE),
        -(-(header - HEADER_ROOM) // HEADER_PER_BYTE),
        (len(layout.tables) - TABLE_ROOM) * BYTES_PER_TABLE,
        -(-(num_steps(layout, num_lanes) - STEP_ROOM) // STEPS_PER_BYTE),
    )
