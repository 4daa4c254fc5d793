"""Shows a person how far the training of float networks is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pwfn.float_network import FloatProgress
from pwfn.sweep.float_board import Board, Teller
from pwfn.sweep.progress import printer

REFRESH_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 60.0
"""Where the output is no terminal: time between two lines on one network."""


@contextmanager
def watched(console: Console) -> Iterator[Teller]:
    """Show, until the block ends, a bar for each network in a terminal, and elsewhere a line each minute."""
    board = ray.remote(num_cpus=0)(Board).remote()
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(board, console, ended), daemon=True)
    thread.start()
    try:
        yield Teller(board)
    finally:
        ended.set()
        thread.join()
        ray.kill(board)


def _show(board: Any, console: Console, ended: threading.Event) -> None:
    if console.is_terminal:
        _show_bars(board, console, ended)
    else:
        _print_lines(board, console, ended)


def _show_bars(board: Any, console: Console, ended: threading.Event) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("epoch {task.completed:.1f} of {task.total}, {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console, transient=True) as bars:
        while not ended.wait(REFRESH_SECONDS):
            for told in ray.get(board.latest.remote()):
                if told.network not in tasks:
                    tasks[told.network] = bars.add_task(told.network, total=told.num_epochs, loss="")
                bars.update(tasks[told.network], completed=told.epochs_done, loss=_loss(told))


def _print_lines(board: Any, console: Console, ended: threading.Event) -> None:
    say, last = printer(console), time.monotonic()
    while not ended.wait(REFRESH_SECONDS):
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            for told in ray.get(board.latest.remote()):
                say(f"float network {told.network}: epoch {told.epochs_done:.2f} of {told.num_epochs}, {_loss(told)}")


def _loss(told: FloatProgress) -> str:
    return "" if told.loss is None else f"loss {told.loss:.3f}"
