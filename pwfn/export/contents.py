"""What a file holds, read from a path, bytes or an open file, in either format version.

Takes torch alone; numpy, where it is there, decodes two to four times as fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pwfn.errors import UserError
from pwfn.export.container import Decode
from pwfn.export.elements import Sizes
from pwfn.export.layout import Kind, Record, Role
from pwfn.export.metadata import ModelMetadata
from pwfn.export.reading import read_elements

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""Where a file comes from: its path, its bytes, or a file opened in binary mode."""
TORCH_NAMES = {
    "F64": "float64", "I64": "int64", "U64": "uint64", "F32": "float32", "I32": "int32", "U32": "uint32",
    "F16": "float16", "BF16": "bfloat16", "I16": "int16", "U16": "uint16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "C64": "complex64",
}  # fmt: skip
"""torch's names of the element types; an old torch may lack the last ones."""
DTYPES = {name: getattr(torch, known) for name, known in TORCH_NAMES.items() if hasattr(torch, known)}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Contents:
    """A file's contents, decoded."""

    version: int
    metadata: ModelMetadata
    fixed: dict[str, Tensor]
    """The fixed set, in the file's order."""
    rest: dict[str, Tensor]
    """Everything else of the network, narrowed tensors widened again."""
    sigmas: dict[str, Tensor]
    """The posterior's sigmas by the name of their weights; empty where only the mean is kept."""
    coded: frozenset[str]
    """Names of the fixed tensors that are coded by shared values."""
    narrowed: frozenset[str]
    """Names of the tensors that were rounded to half precision."""
    measure: Callable[[], Sizes]
    """Counts the file's bytes."""

    @property
    def state(self) -> dict[str, Tensor]:
        """All tensors of the network."""
        return self.fixed | self.rest


def read_contents(source: Source) -> Contents:
    """Read a file whole.

    Raises:
        UserError: it is missing, unreadable, damaged, foreign or of an unknown version; names the path.
    """
    with naming(source):
        return contents_from(read_bytes(source))


def load_state(source: Source) -> dict[str, Tensor]:
    """Return a file's tensors by name without building a network, on the CPU.

    Args:
        source: path, bytes, or a file opened in binary mode.

    Raises:
        UserError: it is missing, unreadable, damaged, foreign or of an unknown version.
    """
    return read_contents(source).state


def read_bytes(source: Source) -> bytes:
    """Return the bytes of a source.

    Raises:
        UserError: it cannot be read, or is no source.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        if isinstance(source, str | os.PathLike):
            return Path(source).read_bytes()
        found = source.read()
    except AttributeError as error:
        raise UserError(f"{type(source).__name__} is neither a path nor bytes nor an open file") from error
    except OSError as error:
        raise UserError(error.strerror or str(error)) from error
    if not isinstance(found, bytes):
        raise UserError("the file is not open in binary mode; open it with 'rb'")
    return found


@contextmanager
def naming(source: Source) -> Iterator[None]:
    """Put a file's path in front of a user's error."""
    try:
        yield
    except UserError as error:
        path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        raise UserError(f"{os.fspath(path)}: {error}" if isinstance(path, str | os.PathLike) else str(error)) from error


def contents_from(data: bytes) -> Contents:
    """Decode a file's bytes.

    Raises:
        UserError: as `read_contents`, without a path.
    """
    found = read_elements(data, _decoder())
    tensors: dict[Role, dict[str, Tensor]] = {role: {} for role in Role}
    coded = set()
    for record, elements in zip(found.records, found.elements, strict=True):
        if record.role == Role.PART:
            continue
        tensors[record.role][record.name] = to_tensor(elements, record)
        if record.role == Role.FIXED and record.coding.kind >= Kind.PALETTE:
            coded.add(record.name)
    narrowed = {name: tensor.float() for name, tensor in tensors[Role.NARROWED].items()}
    rest = [record.name for record in found.records if record.role in (Role.REST, Role.NARROWED)]
    return Contents(
        version=found.version,
        metadata=found.metadata,
        fixed=tensors[Role.FIXED],
        rest={name: narrowed[name] if name in narrowed else tensors[Role.REST][name] for name in rest},
        sigmas=tensors[Role.SIGMA],
        coded=frozenset(coded),
        narrowed=frozenset(narrowed),
        measure=found.measure,
    )


def _decoder() -> Decode:
    """Choose what decodes: numpy where it is installed, else torch, which brings no numpy along."""
    try:
        from pwfn.export.stream import decode
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        from pwfn.export.alone import decode
    return decode


def to_tensor(elements: Any, record: Record) -> Tensor:
    """Turn bit patterns into a tensor, without a copy.

    Raises:
        UserError: this torch has no such element type.
    """
    dtype = DTYPES.get(record.dtype)
    if dtype is None:
        raise UserError(f"tensor {record.name!r} is {record.dtype}, which this torch does not have: upgrade it")
    if not record.num_elements:
        return torch.empty(record.shape, dtype=dtype)
    if isinstance(elements, Tensor):
        return elements.view(dtype).reshape(record.shape)
    return torch.frombuffer(elements, dtype=dtype).reshape(record.shape)
