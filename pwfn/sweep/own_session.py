"""Ray's processes on this machine in a session of their own: a signal for the driver's group or cgroup spares them.

Batch systems, `timeout` and Ctrl-C signal all processes of a group, systemd those of a cgroup. Ray's daemons would end
at once, and with them the rounds that the driver wants to see finished. So they leave the group, and block SIGTERM,
which what they start inherits. The driver ends them; and the kernel does where the driver dies (Ray asks it to).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS_TO_END = 5.0


@contextmanager
def own_session(started: list[int]) -> Iterator[None]:
    """In this context what Ray starts leads a session of its own and does not hear SIGTERM; `started` gets its ids."""
    from ray._private import services

    popen = services.ConsolePopen  # the only place where Ray (2.60) starts its daemons

    class InOwnSession(popen):  # type: ignore[misc]  # Ray is untyped
        def __init__(self, *arguments: Any, preexec_fn: Callable[[], None] | None = None, **options: Any) -> None:
            def prepare() -> None:
                if preexec_fn is not None:
                    preexec_fn()
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

            super().__init__(*arguments, preexec_fn=prepare, start_new_session=True, **options)
            started.append(self.pid)

        def terminate(self) -> None:
            """End it: it does not hear what this sends otherwise."""
            self.kill()

    services.ConsolePopen = InOwnSession
    try:
        yield
    finally:
        services.ConsolePopen = popen


def families(pids: Iterable[int]) -> list[tuple[int, str]]:
    """List some processes and all that descend from them, by their id and their start, on Linux; none elsewhere."""
    children: dict[int, list[int]] = {}
    began: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
            began[int(path.parent.name)] = fields[19]
    found, waiting = [], list(pids)
    while waiting:
        pid = waiting.pop()
        found += [(pid, began[pid])] if pid in began else []
        waiting += children.get(pid, [])
    return found


def end(processes: list[tuple[int, str]]) -> None:
    """Kill those of some processes that have not ended by themselves after `SECONDS_TO_END`."""
    deadline = time.monotonic() + SECONDS_TO_END
    while (left := [pid for pid, began in processes if _runs(pid, began)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int, began: str) -> bool:
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[19] == began and fields[0] not in "ZX"
    return False
