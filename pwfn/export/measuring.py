"""How many of a file's bytes hold what."""

from __future__ import annotations

import zlib
from dataclasses import replace

from pwfn.export.container import Unpacked
from pwfn.export.elements import Sizes
from pwfn.export.layout import Coding, Kind, Record, Role, stored_bytes, write_layout
from pwfn.export.stream import code_bits


def sizes_of(unpacked: Unpacked, num_bytes: int) -> Sizes:
    """Share the header and the stream out over what they hold, in proportion where they cannot be told apart."""
    layout = unpacked.packed.layout
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
    codebook = max(unpacked.packed.header_bytes - named, 0)
    whole = [int(each) for each in (symbols, stored, rest, sigmas)]
    return Sizes(num_bytes, codebook, *whole)


def _owners(records: tuple[Record, ...]) -> list[Record]:
    """Each record, or for a part the tensor that it belongs to."""
    found = list(records)
    for record in reversed(records):
        if record.coding.kind in (Kind.SCALED, Kind.GROUPED):
            found[record.coding.part] = record
    return found
