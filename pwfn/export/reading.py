"""A file's tensors as bit patterns, in either format version. Takes numpy alone: the report reads files too."""

from __future__ import annotations

import zlib
from dataclasses import replace

from pwfn.export.container import TENSOR, Unpacked, malformed, read_envelope, unpack
from pwfn.export.elements import Elements, Sizes
from pwfn.export.layout import Coding, Kind, Record, Role, write_layout
from pwfn.export.metadata import metadata_from_json
from pwfn.export.stream import code_bits, stored_bytes
from pwfn.export.version1 import read_version1


def read_elements(data: bytes) -> Elements:
    """Decode a file's bytes.

    Raises:
        UserError: damaged, foreign, of an unknown version or inconsistent.
    """
    header = read_envelope(data)
    if TENSOR not in header:
        return read_version1(data, header)
    unpacked = unpack(data, header)
    try:
        metadata = metadata_from_json(unpacked.layout.metadata)
    except ValueError as error:
        raise malformed(f"metadata {error}") from error
    return Elements(2, metadata, unpacked.layout.records, unpacked.elements, lambda: _measure(unpacked, len(data)))


def _measure(unpacked: Unpacked, num_bytes: int) -> Sizes:
    """Share the header and the stream out over what they hold, in proportion where they cannot be told apart."""
    layout = unpacked.layout
    bare = [replace(each, coding=Coding(Kind.STORED)) for each in layout.records if each.role != Role.PART]
    named = len(zlib.compress(write_layout(replace(layout, palettes=(), tables=(), records=tuple(bare))), 9))
    bits = code_bits(layout, unpacked.symbols)
    owners = _owners(layout.records)
    per_bit = unpacked.stream_bytes / max(sum(bits), 1)
    symbols = stored = rest = sigmas = 0.0
    for record, owner, own_bits in zip(layout.records, owners, bits, strict=True):
        size, own = own_bits * per_bit, stored_bytes(record)
        shared = owner.coding.kind >= Kind.PALETTE
        if owner.role in (Role.REST, Role.NARROWED):
            rest += size + own
        elif shared:
            symbols += size + own
        elif owner.role == Role.SIGMA:
            sigmas += size + own
        else:
            stored += size + own
    codebook = max(unpacked.header_bytes - named, 0)
    whole = [int(each) for each in (symbols, stored, rest, sigmas)]
    return Sizes(num_bytes, codebook, *whole)


def _owners(records: tuple[Record, ...]) -> list[Record]:
    """Each record, or for a part the tensor that it belongs to."""
    found = list(records)
    for record in reversed(records):
        if record.coding.kind in (Kind.SCALED, Kind.GROUPED):
            found[record.coding.part] = record
    return found
