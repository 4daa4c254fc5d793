"""What processes that train float networks tell of how far they are."""

from __future__ import annotations

import time
from typing import Any

from pwfn.float_network import FloatProgress

SECONDS_BETWEEN_NOTES = 1.0


class Board:
    """An actor to which training processes tell how far they are."""

    def __init__(self) -> None:
        self._latest: dict[str, FloatProgress] = {}
        self._refusal: str | None = None

    def note(self, progress: FloatProgress) -> None:
        """Keep how far a network is."""
        self._latest[progress.network] = progress

    def latest(self) -> list[FloatProgress]:
        """Return how far each network is."""
        return list(self._latest.values())

    def refuse(self, message: str) -> None:
        """Keep why a training cannot go on."""
        self._refusal = message

    def refusal(self) -> str | None:
        """Return why a training could not go on, if one could not."""
        return self._refusal


class Teller:
    """Tells a board how far this process is, once a second; it can be sent to other processes."""

    def __init__(self, board: Any) -> None:
        self.board = board
        self._last = 0.0

    def __call__(self, progress: FloatProgress) -> None:
        """Tell it, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_NOTES or progress.epochs_done == progress.num_epochs:
            self._last = now
            self.board.note.remote(progress)
