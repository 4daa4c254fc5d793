"""Where the trials of a sweep report their rounds and hear whether to go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from pwfn.results import files
from pwfn.results.schema import Row
from pwfn.search.pruning import Referee
from pwfn.search.study import Study
from pwfn.trial.verdict import Verdict


class Desk:
    """The one place that knows all running trials; an actor beside the driver.

    Args:
        referee: who prunes; None lets every trial run to its end.
        study: whose recorded rounds the referee recalls.
    """

    def __init__(self, referee: Referee | None, study: Study) -> None:
        if referee is not None:
            searched = {proposal["trial_id"] for proposal in study.proposals()}  # a replicate is no rival
            referee.recall(row for row in study.store.read_all_rounds() if row["trial_id"] in searched)
        self._referee = referee
        self._is_closing = False
        self._summaries: dict[str, str] = {}
        self._notes: list[str] = []
        self._started: dict[str, tuple[float, Any]] = {}

    def arrive(self, trial_id: str, process: Any) -> bool:
        """Note that a trial begins in a process (an actor); return whether it shall begin at all."""
        if not self._is_closing:
            self._started[trial_id] = (time.monotonic(), process)
        return not self._is_closing

    def leave(self, trial_id: str) -> None:
        """Note that a trial has ended."""
        self._started.pop(trial_id, None)

    def report(self, row: Row, summary: str) -> int:
        """Take the row of a trial's finished round and return the verdict on the trial."""
        self._summaries[row["trial_id"]] = summary
        if self._is_closing:
            return Verdict.STOP
        goes_on = self._referee is None or self._referee.goes_on(row)
        return Verdict.CONTINUE if goes_on else Verdict.PRUNE

    def close(self) -> None:
        """Stop every trial after its present round."""
        self._is_closing = True

    def summaries(self) -> dict[str, str]:
        """Return the last round of each trial, in words."""
        return self._summaries

    def note(self, text: str) -> None:
        """Take what the user should know at once, such as that a trial waits for the store."""
        self._notes.append(text)

    def take_notes(self) -> list[str]:
        """Hand over what was noted since the last time."""
        notes, self._notes = self._notes, []
        return notes

    def running_seconds(self) -> dict[str, float]:
        """Return for how long each running trial has been in its process."""
        return {trial_id: time.monotonic() - since for trial_id, (since, _) in self._started.items()}

    def kill(self, trial_id: str) -> None:
        """Kill the process of a trial that does not end by itself."""
        _, process = self._started.pop(trial_id)
        ray.kill(process)


@dataclass(frozen=True)
class DeskListener:
    """Reports a trial's rounds to the desk; can be sent to any process."""

    desk: Any

    def __call__(self, row: Row, summary: str) -> Verdict:
        """Report a round and wait for the verdict."""
        return Verdict(ray.get(self.desk.report.remote(row, summary)))


class DeskHandler(logging.Handler):
    """Passes a trial's warnings on to the desk: nobody sees what its own process prints."""

    def __init__(self, desk: Any, trial_id: str) -> None:
        super().__init__(logging.WARNING)
        self._desk = desk
        self._trial_id = trial_id

    def emit(self, record: logging.LogRecord) -> None:
        """Note the message without waiting for the desk."""
        self._desk.note.remote(f"trial {self._trial_id}: {record.getMessage()}")


@contextmanager
def warnings_noted(desk: Any, trial_id: str) -> Iterator[None]:
    """Pass what a trial's store warns of in this process on to the desk."""
    handler = DeskHandler(desk, trial_id)
    files.log.addHandler(handler)
    try:
        yield
    finally:
        files.log.removeHandler(handler)
