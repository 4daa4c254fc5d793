"""Whole files on any filesystem of pyarrow: a reader sees the old file or the new one, never a part of one."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from pwfn.errors import UserError
from pwfn.whole import PARTIAL, write_whole

log = logging.getLogger(__name__)

Result = TypeVar("Result")

OBJECT_STORES = ("s3", "gcs", "abfs")
"""pyarrow's names of the stores in which one put is atomic. On a local disk a rename is. Other filesystems may have
neither."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds between attempts while a filesystem refuses; each pause is twice the one before, up to the longest."""


class RefusedError(UserError):
    """The filesystem refuses: it is full, read-only or gone, or its server does not answer."""


def resolve(location: str) -> tuple[Any, str]:
    """Open the filesystem of a local path or URI and give it with the path inside it.

    Raises:
        UserError: The URI is malformed, or its filesystem cannot replace a file atomically.
    """
    if "://" not in location:
        return fs.LocalFileSystem(), os.path.abspath(Path(location).expanduser())  # noqa: PTH100  resolve() follows links
    return _open_uri(location)


@functools.cache
def _open_uri(location: str) -> tuple[Any, str]:
    with reported(location, "open"):
        filesystem, path = fs.FileSystem.from_uri(_with_single_puts(location))
    if filesystem.type_name not in (*OBJECT_STORES, "local"):
        raise UserError(f"{location}: results are kept in a local folder or at s3://, gs:// or abfs://")
    return filesystem, path


def read(filesystem: Any, path: str) -> bytes | None:
    """Read a file whole; None if it does not exist.

    Raises:
        UserError: It exists and cannot be read.
    """
    with reported(path, "read"):
        try:
            with filesystem.open_input_stream(path, compression=None) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        return content


def write(filesystem: Any, path: str, content: bytes) -> None:
    """Write a file whole, in the place of an earlier one.

    Locally: written and synced under a hidden name that ends in `.tmp`, then renamed, so that neither a kill nor a
    full disk leaves a part under the final name. Object stores: one put.

    Raises:
        UserError: It cannot be written; an earlier file is as it was.
    """
    with reported(path, "write"):
        if filesystem.type_name == "local":
            write_whole(Path(path), content)
        else:
            with filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(content)


def delete(filesystem: Any, path: str) -> None:
    """Delete a file; do nothing if it does not exist.

    Raises:
        UserError: It cannot be deleted.
    """
    with reported(path, "delete"), suppress(FileNotFoundError):
        filesystem.delete_file(path)


def delete_folder(filesystem: Any, path: str) -> None:
    """Delete a folder with everything in it; do nothing if it does not exist.

    Raises:
        UserError: It cannot be deleted.
    """
    with reported(path, "delete"), suppress(FileNotFoundError):
        filesystem.delete_dir(path)


def names(filesystem: Any, folder: str, suffix: str) -> list[str]:
    """List, sorted, the names of files directly in a folder that end in `suffix`; empty if there is no folder.

    Raises:
        UserError: The folder cannot be listed.
    """
    if filesystem.type_name != "local":
        return list(sizes(filesystem, folder, suffix))
    with reported(folder, "list"), suppress(FileNotFoundError), os.scandir(folder) as entries:  # no stat of each file
        found = [entry.name for entry in entries if entry.name.endswith(suffix) and entry.is_file()]
        return sorted(name for name in found if not name.startswith("."))
    return []


def sizes(filesystem: Any, folder: str, suffix: str) -> dict[str, int]:
    """Map the same names to the size of each file in bytes.

    Raises:
        UserError: The folder cannot be listed.
    """
    found = {name: size for name, size in _list(filesystem, folder) if not name.startswith(".")}
    return {name: found[name] for name in sorted(found) if name.endswith(suffix)}


def delete_partial(filesystem: Any, folder: str) -> None:
    """Delete files directly in a folder that were left half-written by processes that were killed.

    Raises:
        UserError: The folder cannot be listed, or a file not deleted.
    """
    for name, _ in _list(filesystem, folder):
        if name.startswith(".") and name.endswith(PARTIAL):
            delete(filesystem, f"{folder}/{name}")


def require_folder(filesystem: Any, path: str) -> None:
    """Raise RefusedError if a local folder is gone, for example because its drive was removed."""
    if filesystem.type_name == "local" and not Path(path).is_dir():
        raise RefusedError(f"{path}: the folder is gone")


def patiently(action: Callable[[], Result], patience: float) -> Result:
    """Do something that a filesystem may refuse, again and again for up to `patience` seconds; 0 means once.

    Every refusal is treated as one that may pass. A store that worked before may become full, read-only or unreachable,
    and the errors that say so have too many forms to tell them apart.

    Raises:
        RefusedError: the last refusal, with the time for which the filesystem has refused.
    """
    started, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            result = action()
        except RefusedError as error:
            waited = time.monotonic() - started
            if waited >= patience:
                raise RefusedError(f"{error}, for {waited:.0f} s now") if patience > 0 else error from error.__cause__
            if pause == FIRST_PAUSE:
                log.warning("%s; trying again for up to %.0f s", error, patience)
            time.sleep(min(pause, patience - waited))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if pause > FIRST_PAUSE:
                log.warning("the results can be used again, after %.0f s", time.monotonic() - started)
            return result


def make_folders(filesystem: Any, folders: list[str]) -> list[Path]:
    """Make folders with their parents and try to write in each; if that fails, remove the folders made here again.

    Returns the local folders that were not there before, outer ones first. Object stores have no folders; there only
    the write is tried.

    Raises:
        UserError: A folder cannot be made or written to.
    """
    made: list[Path] = []
    try:
        for folder in folders:
            if filesystem.type_name == "local":
                _make_folder(Path(folder), made)
            probe = f"{folder}/.probe-{secrets.token_hex(4)}"
            write(filesystem, probe, b"")
            delete(filesystem, probe)
    except UserError:
        for path in reversed(made):
            with suppress(OSError):  # another process has put something there
                path.rmdir()
        raise
    return made


@contextmanager
def reported(path: str, action: str) -> Iterator[None]:
    """Turn an error of the filesystem or of the format of a file into one line that a user can act on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RefusedError(f"{path}: cannot {action}: {' '.join(reason.split())}") from error
    except pa.ArrowException as error:
        raise UserError(f"{path}: cannot {action}: {' '.join(str(error).split())}") from error


def _list(filesystem: Any, folder: str) -> list[tuple[str, int]]:
    with reported(folder, "list"):
        found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return [(entry.base_name, entry.size) for entry in found if entry.type == fs.FileType.File]


def _with_single_puts(uri: str) -> str:
    """Let pyarrow send a small S3 object as one put; by default it is a multipart upload of three requests."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _make_folder(folder: Path, made: list[Path]) -> None:
    with reported(str(folder), "make the folder"):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            made.append(path)
