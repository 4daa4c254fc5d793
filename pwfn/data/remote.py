"""Data in an object store or on the hub, listed through fsspec; `s3://` is pyarrow's, as the results' is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper

from pwfn.errors import UserError, first_line


class S3(ArrowFSWrapper):  # type: ignore[misc]  # fsspec has no types
    """Pyarrow's S3 under fsspec's interface: s3fs wants another boto than the one that is installed."""

    protocol = ("s3", "s3a")

    def __init__(self, **options: Any) -> None:
        from pyarrow.fs import S3FileSystem

        known = {name: value for name, value in options.items() if name in ("endpoint_override", "scheme", "region")}
        super().__init__(S3FileSystem(**known))


@dataclass(frozen=True)
class Storage:
    """A place in a store."""

    filesystem: Any
    protocol: str
    base: str
    """Path of the place inside the store."""
    options: dict[str, str]
    """Of the file system: a region, another endpoint."""

    def find(self, suffix: str) -> list[str]:
        """List files of a suffix below, without hidden ones.

        Raises:
            UserError: a store that cannot be reached, or that refuses.
        """
        try:
            self.filesystem.ls(self.base)  # `find` takes a store that cannot be reached for an empty one
            found = self.filesystem.find(self.base)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"data.root: {self.protocol}://{self.base} cannot be read: {first_line(error)}") from error
        return sorted(path for path in found if path.endswith(suffix) and "/." not in path.removeprefix(self.base))


def open_storage(uri: str) -> Storage:
    """Open a place such as `s3://bucket/folder?region=eu-west-1` or `hf://datasets/org/name`.

    Raises:
        UserError: a store that is not known or cannot be reached.
    """
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    if parts.scheme in ("http", "https", "ftp", "file"):
        raise UserError(
            f"data.root: {uri} is no store; give a folder of this machine, s3://bucket/folder, hf://datasets/NAME, or "
            "download the files"
        )
    try:
        if parts.scheme in S3.protocol:
            fsspec.register_implementation("s3", S3, clobber=True)
        filesystem = fsspec.filesystem(parts.scheme, **options)
        return Storage(filesystem, parts.scheme, f"{parts.netloc}{parts.path}".rstrip("/"), options)
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"data.root: {uri} cannot be opened: {first_line(error)}") from error
