"""Ray's daemons on this machine in sessions of their own: a signal for the driver's group or cgroup spares them.

Batch systems, `timeout` and Ctrl-C signal all processes of a group, systemd those of a cgroup. Ray's daemons would end
at once, and with them the rounds that the driver wants to see finished. So they leave the group, and block SIGTERM,
which what they start inherits. The driver ends them, and where it dies the kernel does, as Ray asks it to.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def own_session(tell: Callable[[int], None]) -> Iterator[None]:
    """In this context what Ray starts leads a session of its own and does not hear SIGTERM; `tell` is given its id."""
    from ray._private import services

    popen: Any = services.ConsolePopen  # the only place where Ray (2.60) starts its daemons

    class InOwnSession(popen):  # type: ignore[misc]  # Ray is untyped
        def __init__(self, *arguments: Any, preexec_fn: Callable[[], None] | None = None, **options: Any) -> None:
            def prepare() -> None:
                if preexec_fn is not None:
                    preexec_fn()
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

            super().__init__(*arguments, preexec_fn=prepare, start_new_session=True, **options)
            tell(self.pid)

        def terminate(self) -> None:
            """End it: it does not hear what this sends otherwise."""
            self.kill()

    services.ConsolePopen = InOwnSession
    try:
        yield
    finally:
        services.ConsolePopen = popen
