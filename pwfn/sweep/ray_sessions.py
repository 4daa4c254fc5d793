"""Ends the sessions of Ray's daemons when their driver is gone, however it died; also a program, the watcher.

Ray's daemons end with their driver, by the kernel, but two agents that they start look for them only once a minute. All
of them are in the daemons' sessions, so that they can be found after their parents are gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress

SECONDS_TO_END = 5.0


class Watcher:
    """A process that waits for this one to end, and then ends the sessions that it was told."""

    def __init__(self) -> None:
        self._sessions: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
        )

    def watch(self, session: int) -> None:
        """Tell it of a session, which has the id of the process that leads it."""
        self._sessions.append(session)
        if self._process.stdin is not None:
            self._process.stdin.write(f"{session}\n".encode())
            self._process.stdin.flush()

    def end(self) -> None:
        """End the sessions, whose leaders are already ending, and then the watcher.

        What they started, the agents above all, need not end by itself: it may take its minute, and has nothing to do.
        """
        deadline = time.monotonic() + SECONDS_TO_END
        while set(self._sessions) & set(members(self._sessions)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._process.communicate()  # at the end of its input it kills what is left


def members(sessions: Collection[int]) -> list[int]:
    """List the processes that run in some sessions, on Linux; none elsewhere."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():  # noqa: PTH112, PTH208  pathlib is slow
        with suppress(OSError, IndexError, ValueError), open(f"/proc/{int(name)}/stat") as stat:  # noqa: PTH123
            fields = stat.read().rpartition(")")[2].split()
            if int(fields[3]) in sessions and fields[0] not in "ZX":
                found.append(int(name))
    return found


def watch_and_end() -> None:
    """Read sessions from the input, one a line, until whoever writes them is gone; then kill all that is in them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sessions = {int(line) for line in sys.stdin}
    for _ in range(20):  # what is killed may just have started something
        left = members(sessions)
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.1)


if __name__ == "__main__":
    watch_and_end()
