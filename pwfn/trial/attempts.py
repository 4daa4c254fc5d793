"""What a trial has cost so far. Each start is recorded, with signs of life while it runs, so that lost work counts.

Only the trial itself writes these records. When its process dies, the last sign of life says until when it held its
GPUs, and the rounds on disk say how much of that time was of use.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple

from pwfn.clock import now
from pwfn.errors import UserError
from pwfn.results.store import ResultsStore

SIGN_OF_LIFE_SECONDS = 10.0
"""Seconds between two signs of life: of a lost process, at most this much time is not counted."""


class Attempt(NamedTuple):
    """One start of a trial."""

    started_at: dt.datetime
    seen_at: dt.datetime
    """Time of its last sign of life."""
    kept_at: dt.datetime | None = None
    """Time of its last checkpoint inside a round; None if it wrote none."""


class Cost(NamedTuple):
    """What all starts of a trial took together; each field is the column of that name in the trial's row."""

    started_at: dt.datetime
    finished_at: dt.datetime
    wall_seconds: float
    gpu_seconds: float
    lost_seconds: float
    retries: int
    train_seconds: float
    data_seconds: float


def cost(attempts: Sequence[Attempt], rounds: Sequence[dict[str, Any]], *, num_gpus: float, is_lost: bool) -> Cost:
    """Add up what the starts of a trial took.

    Args:
        attempts: in order, at least one.
        rounds: rows of the rounds that the trial has finished.
        num_gpus: GPUs that it holds while it runs.
        is_lost: whether the process of the last start was lost too. If it was not, all of its time was of use.
    """
    held = [(each.seen_at - each.started_at).total_seconds() for each in attempts]
    used = [_seconds_of_use(each, rounds) for each in attempts]
    if not is_lost:
        used[-1] = held[-1]
    lost = sum(held) - sum(used)
    ends = attempts[0].started_at, attempts[-1].seen_at
    parts = (sum(row[name] or 0 for row in rounds) for name in ("train_seconds", "data_seconds"))
    return Cost(*ends, sum(used), sum(held) * num_gpus, lost, len(attempts) - 1, *parts)


def _seconds_of_use(attempt: Attempt, rounds: Sequence[dict[str, Any]]) -> float:
    """Seconds from a start to the last round that it finished, or checkpoint that it wrote; 0 if there is neither."""
    ends = [row["finished_at"] for row in rounds if attempt.started_at <= row["finished_at"] <= attempt.seen_at]
    ends += [] if attempt.kept_at is None else [attempt.kept_at]
    return (max(ends) - attempt.started_at).total_seconds() if ends else 0.0


class Attempts:
    """The starts of one trial, this process's own start last. As a context manager it gives signs of life inside.

    Args:
        store: where the starts are kept until the trial has its row, which then has their cost.
        trial_id: the trial.
        is_writer: whether this process writes to the store; of several replicas only the first does.
    """

    def __init__(self, store: ResultsStore, trial_id: str, *, is_writer: bool = True) -> None:
        self._store = store
        self._trial_id = trial_id
        self._is_writer = is_writer
        self._attempts: list[Attempt] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._give_signs_of_life, daemon=True)

    def __enter__(self) -> Attempts:
        """Record that a start begins, and begin to give signs of life."""
        self._attempts = [*read_attempts(self._store, self._trial_id), Attempt(now(), now())]
        self._give_sign_of_life(self._store)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop giving signs of life, after a last one."""
        self._is_over.set()
        self._thread.join()
        self._try_sign_of_life()

    def cost(self, num_gpus: float) -> Cost:
        """Return what all starts have taken until now, if the trial holds `num_gpus` GPUs."""
        rounds = self._store.read_rounds(self._trial_id)
        attempts = [*self._attempts[:-1], self._attempts[-1]._replace(seen_at=now())]
        return cost(attempts, rounds, num_gpus=num_gpus, is_lost=False)

    def note_checkpoint(self) -> None:
        """Note that all that was done until now is kept; the next sign of life says so."""
        self._attempts[-1] = self._attempts[-1]._replace(kept_at=now())

    def _give_signs_of_life(self) -> None:
        while not self._is_over.wait(SIGN_OF_LIFE_SECONDS):
            self._try_sign_of_life()

    def _try_sign_of_life(self) -> None:
        """Give a sign of life, unless the store refuses: the trial's results wait for the store and report that."""
        with suppress(UserError):
            self._give_sign_of_life(replace(self._store, patience=0))

    def _give_sign_of_life(self, store: ResultsStore) -> None:
        self._attempts[-1] = self._attempts[-1]._replace(seen_at=now())
        if self._is_writer:
            starts = [[moment.isoformat() for moment in attempt if moment is not None] for attempt in self._attempts]
            store.write_attempts(self._trial_id, {"attempts": starts})


def read_attempts(store: ResultsStore, trial_id: str) -> list[Attempt]:
    """Read the starts of a trial that has no row yet; an empty list if it never started."""
    written = store.read_attempts(trial_id) or {"attempts": []}
    return [Attempt(*map(dt.datetime.fromisoformat, moments)) for moments in written["attempts"]]
