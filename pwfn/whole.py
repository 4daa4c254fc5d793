"""Local files that are there whole or not at all, whatever happens to the process that writes them."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".tmp"
"""Ends the hidden name under which a file is written before it is moved into place."""


@contextmanager
def written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Write and sync a file under a hidden name beside its place; move it there when the context ends well.

    Neither a kill nor a full disk leaves a part under the final name; an earlier file stays until then.

    Raises:
        OSError: it cannot be written or moved.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        _write_synced(beside, content)
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole, in the place of an earlier one.

    Raises:
        OSError: it cannot be written; an earlier file is as it was.
    """
    with written_beside(path, content):
        pass


def write_new(path: Path, content: bytes) -> bool:
    """Write a file whole unless there is one; say whether it was written. One of several processes succeeds.

    A disk without hard links may be left with a part of the file by a kill.

    Raises:
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        _write_synced(beside, content)
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _write_where_none_is(path, content)
    finally:
        beside.unlink(missing_ok=True)
    return True


_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOTSUP)
"""Errors of disks that have no hard links."""


def _write_where_none_is(path: Path, content: bytes) -> bool:
    try:
        _write_synced(path, content)
    except FileExistsError:
        return False
    return True


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
