"""A file's tensors as bit patterns, in either format version. Takes nothing but Python and what decodes."""

from __future__ import annotations

from typing import Any

from pwfn.errors import UserError
from pwfn.export.container import TENSOR, Decode, malformed, read_envelope, unpack
from pwfn.export.elements import Elements, Sizes
from pwfn.export.metadata import metadata_from_json


def read_elements(data: bytes, decode: Decode) -> Elements:
    """Decode a file's bytes.

    Args:
        data: the whole file.
        decode: `stream.decode`, which takes numpy, or `alone.decode`, which takes torch.

    Raises:
        UserError: damaged, foreign, of an unknown version or inconsistent.
    """
    header = read_envelope(data)
    if TENSOR not in header:
        return _read_version1(data, header)
    unpacked = unpack(data, header, decode)
    layout = unpacked.packed.layout
    try:
        metadata = metadata_from_json(layout.metadata)
    except ValueError as error:
        raise malformed(f"metadata {error}") from error

    def measure() -> Sizes:
        from pwfn.export.measuring import sizes_of

        return sizes_of(unpacked, len(data))

    return Elements(2, metadata, layout.records, unpacked.elements, measure)


def _read_version1(data: bytes, header: dict[str, Any]) -> Elements:
    try:
        from pwfn.export.version1 import read_version1
    except ModuleNotFoundError as error:
        raise UserError(
            f"files of format version 1 need one more package: pip install constriction ({error})"
        ) from error
    return read_version1(data, header)
