"""Local files that exist either completely or not at all, even if the process that writes them is killed."""

from __future__ import annotations

import errno
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
    beside = _hidden(path)
    try:
        _write_synced(beside, content)
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


def write_new(path: Path, content: bytes) -> bool:
    """Write a file whole unless there is one; say whether it was written. One of several processes succeeds.

    A disk without hard links may be left with a part of the file by a kill.

    Raises:
        OSError: it cannot be written.
    """
    beside = _hidden(path)
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


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
