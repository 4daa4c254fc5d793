"""Files that are created once: of all processes that try at the same time, on any machines, one succeeds.

On local disks and NFS a hard link is made, which fails where there is a file. S3, Google's and Azure's stores have
conditional puts, which pyarrow (26) does not offer, so obstore sends them. Where a store refuses them, or obstore finds
no credentials although pyarrow does (it reads no profile files), a warning says so: the file is then put and read again
after a pause. That fails only where two processes put within that pause and the first one's content is read back twice.
"""

from __future__ import annotations

import functools
import logging
import time
import urllib.parse
from pathlib import Path
from typing import Any

from pwfn.results import files
from pwfn.whole import write_new

log = logging.getLogger(__name__)

SECONDS_TO_SETTLE = 2.0
"""Pause between putting a file and reading it again, in stores without conditional puts."""
_CLIENT: Any = {"timeout": "20s", "connect_timeout": "5s", "allow_http": True}
_warned: set[str] = set()
_RETRIES: Any = {"max_retries": 2}


def create(filesystem: Any, path: str, location: str, content: bytes) -> bool:
    """Write a file whole unless there is one; say whether the file there is this one.

    Args:
        filesystem: pyarrow's.
        path: inside the filesystem.
        location: the path or URI that the filesystem was opened with.
        content: differs from what any other process would write, so that a process recognises its own after an
            answer was lost on the network.

    Raises:
        UserError: it cannot be written.
    """
    if filesystem.type_name == "local":
        with files.reported(path, "write"):
            is_new = write_new(Path(path), content)
    else:
        is_new = _put(filesystem, path, location, content)
    return is_new or files.read(filesystem, path) == content


def _put(filesystem: Any, path: str, location: str, content: bytes) -> bool:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError

    bucket, _, key = path.partition("/")
    try:
        obstore.put(_client(bucket, location), key, content, mode="create")
    except AlreadyExistsError:
        return False
    except BaseError as error:
        is_new = files.read(filesystem, path) is None  # raises if it is the store that cannot be reached
        _warn(location, str(error).strip().split("\n", 1)[0])
        return is_new and _put_and_look(filesystem, path, content)
    return True


def _put_and_look(filesystem: Any, path: str, content: bytes) -> bool:
    files.write(filesystem, path, content)
    time.sleep(SECONDS_TO_SETTLE)
    return files.read(filesystem, path) == content


def _warn(location: str, reason: str) -> None:
    if location in _warned:
        return
    _warned.add(location)
    log.warning(
        "%s takes no conditional puts from here (%s): start no two commands on one study within %g seconds",
        location,
        reason,
        SECONDS_TO_SETTLE,
    )


@functools.cache
def _client(bucket: str, location: str) -> Any:
    """Open the bucket of a URI as pyarrow does: the options in the URI, else the environment."""
    from obstore.store import S3Store, from_url

    uri = urllib.parse.urlsplit(location)
    options = dict(urllib.parse.parse_qsl(uri.query))
    if uri.scheme != "s3":
        place = urllib.parse.urlunsplit(uri._replace(path="", query=""))
        return from_url(place, client_options=_CLIENT, retry_config=_RETRIES)
    given: dict[str, Any] = {"region": options.get("region") or files.resolve(location)[0].region}
    if "endpoint_override" in options:
        given["endpoint"] = f"{options.get('scheme', 'https')}://{options['endpoint_override']}"
    if uri.username and uri.password:
        keys = map(urllib.parse.unquote, (uri.username, uri.password))
        given |= zip(("access_key_id", "secret_access_key"), keys, strict=True)
    return S3Store(bucket, **given, client_options=_CLIENT, retry_config=_RETRIES)
