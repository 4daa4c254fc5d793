"""Where the trials of a sweep report their rounds and hear whether to go on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray

from pwfn.results.schema import Row
from pwfn.results.store import ResultsStore
from pwfn.search.pruning import Referee, Verdict


class Desk:
    """The one place that knows all running trials; an actor beside the driver.

    Args:
        referee: who prunes; None lets every trial run to its end.
        store: whose recorded rounds the referee recalls.
    """

    def __init__(self, referee: Referee | None, store: ResultsStore) -> None:
        if referee is not None:
            referee.recall(store.read_all_rounds())
        self._referee = referee
        self._is_closing = False
        self._summaries: dict[str, str] = {}
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
