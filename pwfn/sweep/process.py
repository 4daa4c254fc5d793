"""A process as other processes can know it, on this machine or another: which one it is, and whether it still runs."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple


class Process(NamedTuple):
    """One process, told apart from a later one with the same id."""

    host: str
    pid: int
    place: str
    """The running system that its id belongs to: a boot of a machine, and a container there."""
    began: str
    """When it was started, in the system's own ticks; empty where the system does not say."""

    @classmethod
    def here(cls) -> Process:
        """The process that calls."""
        return cls(socket.gethostname(), os.getpid(), _place(), _began(os.getpid()))

    @classmethod
    def read(cls, card: Mapping[str, Any]) -> Process:
        """Read a process from JSON data in the form of `_asdict`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(str(card["host"]), int(card["pid"]), str(card["place"]), str(card["began"]))

    @property
    def is_here(self) -> bool:
        """Whether this system can say if it runs."""
        return (self.host, self.place) == (socket.gethostname(), _place())

    @property
    def runs(self) -> bool:
        """Whether it runs; only known where `is_here`."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _began(self.pid) == self.began

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@functools.cache
def _place() -> str:
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  not a path
    return " ".join(parts)


def _began(pid: int) -> str:
    """Field 22 of /proc/PID/stat, counted behind the name, which may hold spaces; `dead` for a zombie."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "dead" if fields[0] in "ZX" else fields[19]
    return ""
