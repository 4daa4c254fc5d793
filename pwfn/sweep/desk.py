"""The desk: an actor to which the trials of a sweep report their rounds, and which tells them whether to go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pwfn.results import files
from pwfn.results.schema import Row
from pwfn.results.store import ResultsStore
from pwfn.search.pruning import referee_of
from pwfn.search.study import SearchStudy, is_baseline
from pwfn.sweep.places import MOST_FAILURES, Failures, Place
from pwfn.trial.decision import Decision


class Desk:
    """The one place that knows all running trials; an actor on the node of the driver.

    Args:
        store: of the study.
        study: the study whose trials may be pruned, by all rounds that its folder has recorded; None lets every trial
            run to its end.
    """

    def __init__(self, store: ResultsStore, study: SearchStudy | None = None) -> None:
        self._referee = None if study is None else referee_of(study.space)
        if study is not None and self._referee is not None:
            searched = {proposal["trial_id"] for proposal in study.proposals()}  # not replicates: they are not compared
            self._referee.recall(row for row in store.read_all_rounds() if row["trial_id"] in searched)
        self._is_closing = False
        self._summaries: dict[str, str] = {}
        self._notes: list[str] = []
        self._started: dict[str, tuple[float, Any]] = {}
        self._failures = Failures()
        self._store = store

    def arrive(self, trial_id: str, process: Any) -> bool:
        """Note that a trial begins in a process (an actor); return false if it shall not begin, as the sweep ends."""
        if not self._is_closing:
            self._started[trial_id] = (time.monotonic(), process)
        return not self._is_closing

    def leave(self, trial_id: str) -> None:
        """Note that a trial has ended."""
        self._started.pop(trial_id, None)

    def report(self, row: Row, summary: str) -> int:
        """Take the row of a round that a trial has finished, and return the decision on the trial."""
        self._summaries[row["trial_id"]] = summary
        if self._is_closing:
            return Decision.STOP
        goes_on = is_baseline(row) or self._referee is None or self._referee.goes_on(row)
        return Decision.CONTINUE if goes_on else Decision.PRUNE

    def machine_failed(self, trial_id: str, place: Place, failure_class: str, message: str) -> None:
        """Note that the machine failed under a trial, which goes on in another process."""
        blamed = self._failures.note(place, trial_id, failure_class, message)
        self._notes.append(f"trial {trial_id}: {place.name} failed ({failure_class}: {message})")
        if blamed in self._failures.left_alone():
            self._notes.append(f"{blamed.name} has failed {MOST_FAILURES} times and is left alone from now on")
        self._store.write_machines(self._failures.record())

    def avoided(self, trial_id: str) -> list[Place]:
        """Return the places where a trial shall not run."""
        return self._failures.avoided(trial_id)

    def last_failure(self, trial_id: str) -> tuple[str, str, int] | None:
        """Return class and message of the machine's last failure under a trial, and how many there were."""
        return self._failures.last(trial_id)

    def close(self) -> None:
        """Stop every trial after the round that it is in now."""
        self._is_closing = True

    def summaries(self) -> dict[str, str]:
        """Return the summary of each trial's last round."""
        return self._summaries

    def note(self, text: str) -> None:
        """Take a message that the user should see at once, for example that a trial waits for the store."""
        self._notes.append(text)

    def take_notes(self) -> list[str]:
        """Return the messages that were noted since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def running_seconds(self) -> dict[str, float]:
        """Return for how many seconds each running trial has been in its present process."""
        return {trial_id: time.monotonic() - since for trial_id, (since, _) in self._started.items()}

    def kill(self, trial_id: str) -> None:
        """Kill the process of a trial that does not end by itself."""
        _, process = self._started.pop(trial_id)
        ray.kill(process)


@contextmanager
def open_desk(store: ResultsStore, study: SearchStudy | None = None) -> Iterator[Any]:
    """Run a desk on the node of the driver, so that no lost node can take it along; if it dies, Ray starts it again."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Desk)
    desk = remote.options(scheduling_strategy=here).remote(store, study)
    try:
        yield desk
    finally:
        ray.kill(desk)  # Tune keeps a reference to it, so it would stay, with half a gigabyte


@dataclass(frozen=True)
class DeskListener:
    """Reports the rounds of a trial to the desk; it can be sent to any process."""

    desk: Any

    def __call__(self, row: Row, summary: str) -> Decision:
        """Report a round and wait for the decision."""
        return Decision(ray.get(self.desk.report.remote(row, summary)))


class DeskHandler(logging.Handler):
    """Passes the warnings of a trial on to the desk, because nobody sees what the trial's own process prints."""

    def __init__(self, desk: Any, trial_id: str) -> None:
        super().__init__(logging.WARNING)
        self._desk = desk
        self._trial_id = trial_id

    def emit(self, record: logging.LogRecord) -> None:
        """Note the message without waiting for the desk."""
        self._desk.note.remote(f"trial {self._trial_id}: {record.getMessage()}")


@contextmanager
def warnings_noted(desk: Any, trial_id: str) -> Iterator[None]:
    """Inside this context, pass the warnings of the results' files in this process on to the desk."""
    handler = DeskHandler(desk, trial_id)
    files.log.addHandler(handler)
    try:
        yield
    finally:
        files.log.removeHandler(handler)
