"""Local files that exist either completely or not at all, even if the process that writes them is killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".tmp"
"""Ending of the hidden name under which a file is written before it is renamed."""


@contextmanager
def written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Write a file under a hidden name in the same folder; rename it to `path` when the context ends without an error.

    Neither a kill nor a full disk leaves a part of the file at `path`. An earlier file stays there until the renaming.

    Yields:
        The path of the hidden file.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        with beside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; an earlier file is replaced.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged then.
    """
    with written_beside(path, content):
        pass
