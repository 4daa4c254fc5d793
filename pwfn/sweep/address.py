"""Whether a Ray cluster answers at an address, decided in seconds: Ray itself waits for minutes, then aborts."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pwfn.errors import UserError, first_line

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 14.0


class NoAnswerError(UserError):
    """No Ray cluster answers at an address; one that is starting may answer later."""


def check_address(address: str) -> None:
    """Raise UserError, in one line, unless a Ray cluster answers at an address: `auto`, or HOST:PORT of its head.

    Raises:
        NoAnswerError: no cluster answers there.
        UserError: it is no address of a cluster.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: a search cannot run through Ray's client; start it on a node of the cluster with "
            "--address auto, or send it there with launchers/cluster/submit.sh"
        )
    if address not in ("auto", "local"):
        _connect(address)
    if address != "local":
        _ask(address)


def _connect(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--address {address}: write auto, or HOST:PORT of the cluster's head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise NoAnswerError(f"--address {address}: nothing answers there: {error}") from None


def _ask(address: str) -> None:
    """Ask the cluster in a thread that is left behind if no answer comes; Ray waits without an end."""
    from ray._private import services
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled

    said: list[str | None] = []

    def ask() -> None:
        try:
            GcsClient(address=services.canonicalize_bootstrap_address(address))
            said.append(None)
        except Exception as error:  # whatever Ray raises, it is the answer
            said.append(first_line(error))

    thread = threading.Thread(target=ask, daemon=True)
    with _quiet():
        thread.start()
        thread.join(ANSWER_SECONDS)
    if not said:
        raise NoAnswerError(f"--address {address}: no Ray cluster answers within {ANSWER_SECONDS:.0f} s")
    if said[0] is not None:
        raise NoAnswerError(f"--address {address}: no Ray cluster answers: {said[0]}")


@contextmanager
def _quiet() -> Iterator[None]:
    """In this context nothing is written to stderr, where Ray's C++ tells of each attempt."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
