"""What Ctrl-C and SIGTERM do at any moment of a command: one line, and the exit code of the signal.

The handler raises `Stopped`. In the midst of an import it ends the process instead: whatever imports could catch an
exception, and while a command begins, nothing is lost.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TypeVar

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_words: list[str | None] = [None]
"""What is said when the process ends in the handler; None where the handler raises. The last entry counts."""
_listens: list[bool] = []
_last: list[float] = []
"""When SIGTERM came."""
SECONDS_BETWEEN_LOOKS = 0.2
"""Time between two looks of `in_thread`."""
SAME_SECONDS = 1.0
"""`timeout` and others send SIGTERM to the process and, a moment later, to its group: that counts as one."""


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code that shells expect of a process ended by a signal."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def listen() -> None:
    """Handle the signals from now on; one that the caller of the process has ignored stays ignored."""
    _listens.append(True)
    listen_again()


def listen_again() -> None:
    """Handle the signals as before, after a library has put its own handlers in the place of these."""
    if not _listens or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


@contextmanager
def at_once(words: str) -> Iterator[None]:
    """In this context a signal ends the process at once, with one line."""
    _words.append(words)
    try:
        yield
    finally:
        _words.pop()


@contextmanager
def by_exception() -> Iterator[None]:
    """In this context a signal raises `Stopped`."""
    _words.append(None)
    try:
        yield
    finally:
        _words.pop()


@contextmanager
def by_request(ask: Callable[[int], None], is_stopping: Callable[[], bool]) -> Iterator[None]:
    """In this context a signal is passed to `ask`; one that comes while `is_stopping` raises `Stopped`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def answer(number: int, frame: FrameType | None) -> None:
        if is_repeated(number):
            return
        if is_stopping():
            _stop(number, frame)
        ask(number)

    before = {number: signal.signal(number, answer) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_repeated(number: int) -> bool:
    """Whether a signal is the same one again, sent twice by its sender."""
    if number != signal.SIGTERM:
        return False
    came = time.monotonic()
    is_same = bool(_last) and came - _last[-1] < SAME_SECONDS
    _last.append(came)
    return is_same


def handle(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    if is_repeated(number):
        return
    words = _words[-1]
    if words is None:
        _stop(number, frame)
    _end(number, words)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raise `Stopped`; but end the process in the midst of an import, which might swallow an exception."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            _end(number, "stopped")
        frame = frame.f_back
    raise Stopped(number)


def _end(number: int, words: str | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, f"{signal.Signals(number).name}: {words}\n".encode())
    os._exit(128 + number)


def in_thread(run: Callable[[], Result], look: Callable[[], None] = lambda: None) -> Result:
    """Call a function in a thread and wait for it here, so that signals are heard as before.

    Where Ray Train (2.60) runs in the main thread, it takes Ctrl-C for good, and keeps its controller for that.

    Args:
        run: the function; whatever it raises is raised here.
        look: is called in this thread while it waits, several times a second.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(run())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()  # an executor would wait for it at the end of the program
    while not future.done():
        time.sleep(SECONDS_BETWEEN_LOOKS)
        look()
    return future.result()
