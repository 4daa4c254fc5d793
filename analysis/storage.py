"""A folder of files on any filesystem pyarrow knows: read, list, and write whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from analysis.errors import AnalysisError
from pwfn.whole import write_whole


@dataclass(frozen=True)
class Folder:
    """A folder in a filesystem of pyarrow."""

    filesystem: Any
    path: str

    @classmethod
    def at(cls, location: str) -> Folder:
        """Open a local path or a URI (s3://, gs://, abfs://).

        Raises:
            AnalysisError: The URI is malformed.
        """
        if "://" not in location:
            return cls(fs.LocalFileSystem(), str(Path(location).expanduser().absolute()))
        with _reported(location, "open"):
            filesystem, path = fs.FileSystem.from_uri(location)
            return cls(filesystem, path.rstrip("/"))

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.filesystem, f"{self.path}/{name}")

    def files(self, suffix: str) -> list[str]:
        """List, sorted, the names of the files here that end in `suffix`; empty if the folder does not exist."""
        return [name for name, kind in self._entries() if kind == fs.FileType.File and name.endswith(suffix)]

    def folders(self) -> list[str]:
        """List, sorted, the names of the folders here; empty if this folder does not exist."""
        return [name for name, kind in self._entries() if kind == fs.FileType.Directory]

    def read(self, name: str) -> bytes | None:
        """Read a file whole; None if it does not exist."""
        with _reported(f"{self.path}/{name}", "read"):
            try:
                with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
                    content: bytes = stream.read()
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> str:
        """Write a whole file (locally under a hidden name, then renamed), make its folder, and return its path."""
        path = f"{self.path}/{name}"
        with _reported(path, "write"):
            if self.filesystem.type_name != "local":
                with self.filesystem.open_output_stream(path, compression=None) as stream:
                    stream.write(content)
                return path
            Path(self.path).mkdir(parents=True, exist_ok=True)
            write_whole(Path(path), content)
        return path

    def _entries(self) -> list[tuple[str, Any]]:
        with _reported(self.path, "list"):
            entries = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted((entry.base_name, entry.type) for entry in entries if not entry.base_name.startswith("."))


@contextmanager
def _reported(path: str, action: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AnalysisError(f"{path}: cannot {action}: {' '.join(reason.split())}") from error
