"""Ends what must end: a trial that hangs or has lost its process for good, and the sweep when its time is over."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import ray
from ray import tune

from pwfn.naming import counted
from pwfn.search.study import SearchStudy
from pwfn.stopping import by_request
from pwfn.sweep.lost import cause_of_loss, failed, is_out_of_memory, lost_row
from pwfn.trial.rows import Row

log = logging.getLogger(__name__)

ALIKE = 5
"""A sweep gives up if its first trials, this many, all fail with the same class of failure."""
SECONDS_BETWEEN_LOOKS = 1.0


class Supervisor(tune.Callback, tune.Stopper):  # type: ignore[misc]  # Ray is untyped
    """Watches a sweep; give it to Tune as a callback and as its stopper.

    Args:
        study: the study whose trials run.
        desk: the actor to which they report.
        stop_proposing: is called when no further trial shall start.
        since: when the command began, on the monotonic clock; `search.hours` counts from there.
        ended: rows of the trials that ended before this sweep.
    """

    def __init__(
        self, study: SearchStudy, desk: Any, stop_proposing: Callable[[], None], since: float, ended: Iterable[Row]
    ) -> None:
        self._study = study
        self._desk = desk
        self._stop_proposing = stop_proposing
        self.stopped_because: str | None = None
        """Why the sweep ends before all planned trials have ended, in words; None if it does not."""
        self.error: str | None = None
        """Why it makes no sense to go on (input that no trial can use, or trials that all fail alike), or None."""
        self.is_stopping = False
        self._states: list[tuple[str, str | None]] = []
        resources = study.space.resources
        self._gpus_per_trial = resources.workers * resources.gpus_per_worker
        self._gpu_seconds = sum(row["gpu_seconds"] or 0 for row in ended)
        self._since = since
        self._looked = time.monotonic()

    def request_stop(self, reason: str) -> None:
        """Ask for the end of the sweep, also from a signal handler; the next look at the clock carries it out."""
        if self.stopped_because is None:
            self.stopped_because = reason

    def _stop(self) -> None:
        """Let running trials finish their present round, and start no others; a later sweep continues them."""
        self.is_stopping = True
        self._stop_proposing()
        ray.get(self._desk.close.remote())

    def stop_all(self) -> bool:
        """Tell Tune whether to end everything at once."""
        return self.error is not None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tell Tune never to stop a single trial, because trials end themselves."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune pickles its callbacks for a restore that we do not use."""
        return {}

    # What Tune tells

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take note of how a trial ended."""
        self._note_end(trial.last_result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """If Ray killed a trial for its memory, split its batches into smaller parts before it starts again."""
        if is_out_of_memory(trial.get_pickled_error()):
            store, trial_id = self._study.store, trial.config["trial_id"]
            store.write_micro_batches(trial_id, 2 * store.read_micro_batches(trial_id))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the row of a trial that is given up."""
        ours = self._study.trial(trial.config)
        outcome = cause_of_loss(trial.get_pickled_error())
        known = ray.get(self._desk.last_failure.remote(ours.trial_id))
        if outcome["failure_class"] == "lost" and known is not None:  # it ended its process itself, and said why
            failure_class, message, times = known
            outcome = failed(
                failure_class, f"the machine failed under it {counted(times, 'time')}, the last time: {message}"
            )
        self._note_end(lost_row(ours, self._study.store, outcome))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the clock, once a second."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        search = self._study.space.search
        running: dict[str, float] = {}
        if search.trial_minutes is not None or search.gpu_hours is not None:
            running = ray.get(self._desk.running_seconds.remote())
        if search.trial_minutes is not None:
            self._end_overdue({each: s for each, s in running.items() if s > 60 * search.trial_minutes}, trials)
        self.look_at_budget(sum(running.values()) * self._gpus_per_trial)
        if self.stopped_because is not None and not self.is_stopping:
            self._stop()

    # What follows

    def look_at_budget(self, gpu_seconds_running: float = 0.0) -> None:
        """Ask for the end of the sweep if a budget is used up; running trials count with the GPU seconds so far."""
        search = self._study.space.search
        held = self._gpu_seconds + gpu_seconds_running
        if search.hours is not None and time.monotonic() - self._since > 3600 * search.hours:
            self.request_stop(f"the budget of {search.hours:g} hours is used up")
        if search.gpu_hours is not None and held > 3600 * search.gpu_hours:
            self.request_stop(f"the budget of {search.gpu_hours:g} GPU hours is used up")

    def _note_end(self, row: Row) -> None:
        state, failure_class = row.get("state", "failed"), row.get("failure_class")
        if state == "interrupted":
            return
        self._gpu_seconds += row.get("gpu_seconds") or 0
        self._states.append((state, failure_class))
        if failure_class == "user":
            self.error = row["failure_message"]
        elif state == "failed" and len(self._states) == ALIKE and len(set(self._states)) == 1:
            self.error = (
                f"the first {ALIKE} trials all failed alike ({failure_class}), the last one with: "
                f"{row['failure_message']}; the same command again goes on with others"
            )

    def _end_overdue(self, overdue: dict[str, float], trials: list[Any]) -> None:
        """Kill the process of each trial that runs too long. Tune starts it again, and it then finds its row."""
        limit = self._study.space.search.trial_minutes
        for trial in trials:
            seconds = overdue.get(trial.config["trial_id"])
            if seconds is not None:
                ray.get(self._desk.kill.remote(trial.config["trial_id"]))
                message = f"it ran for {seconds / 60:.2g} minutes, but search.trial_minutes is {limit:g}"
                lost_row(self._study.trial(trial.config), self._study.store, failed("timeout", message))


def signals_stop(supervisor: Supervisor, say: Callable[[str], None]) -> AbstractContextManager[None]:
    """In this context Ctrl-C or SIGTERM stops the sweep after the running rounds, a second one at once."""

    def ask(number: int) -> None:
        name = signal.Signals(number).name
        say(f"{name}: the running rounds are finished and written, then the sweep stops; once more stops now")
        supervisor.request_stop(f"{name} came")

    return by_request(ask, lambda: supervisor.stopped_because is not None)
