"""Whether a Ray cluster answers at an address, decided in seconds: Ray itself waits for minutes, then aborts."""

from __future__ import annotations

import socket
import subprocess
import sys

from pwfn.errors import UserError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0


def check_address(address: str) -> None:
    """Raise UserError, in one line, unless a Ray cluster answers at an address: `auto`, or HOST:PORT of its head."""
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
        raise UserError(f"--address {address}: nothing answers there: {error}") from None


def _ask(address: str) -> None:
    """Let another process ask, because Ray aborts the one that asks in vain."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise UserError(f"--address {address}: no Ray cluster answers within {ANSWER_SECONDS:.0f} s") from None
    if done.returncode != 0:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(f"--address {address}: no Ray cluster answers: {said[-1] if said else 'for no stated reason'}")
