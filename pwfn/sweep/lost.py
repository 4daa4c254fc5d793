"""Writes the rows of trials whose own process is lost and can no longer write them."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from pwfn.errors import first_line
from pwfn.results.store import ResultsStore
from pwfn.trial.attempts import Attempt, cost, read_attempts
from pwfn.trial.failures import failure
from pwfn.trial.rows import Row, Trial, trial_row

RESTARTS = 3
"""Times that a trial is started again after its process, or one of its workers, was lost; each start goes on from the
last round."""


def lost_row(trial: Trial, store: ResultsStore, outcome: Row) -> Row:
    """Write the row of a trial that is given up and return it; if the trial has a row already, return that one."""
    written = store.read_trial(trial.trial_id)
    if written is not None:
        return written
    rounds = store.read_rounds(trial.trial_id)
    now = dt.datetime.now(dt.UTC)
    attempts = read_attempts(store, trial.trial_id) or [Attempt(now, now)]  # none if it never started
    spent = cost(attempts, rounds, num_gpus=trial.num_gpus, is_lost=True)
    row = trial_row(trial, {"rounds_done": len(rounds), **outcome}, spent)
    store.write_trial(row)
    store.delete_checkpoint(trial.trial_id)
    store.delete_attempts(trial.trial_id)
    return row


def cause_of_loss(error: Exception | None) -> Row:
    """Turn the error that ended a process for good into an outcome: its own error, or Ray's about a lost process."""
    if is_out_of_memory(error):
        return failed("oom", "a node ran out of memory, and Ray killed the trial's process each time")
    if isinstance(error, RayTaskError):
        return failure(error.cause)
    if error is None or isinstance(error, RayActorError):
        reason = "unknown" if error is None else first_line(error)
        return failed("lost", f"its process was lost each time it was started, the last time: {reason}")
    return failure(error)


def failed(failure_class: str, message: str) -> Row:
    """Build the outcome of a failure."""
    return {"state": "failed", "failure_class": failure_class, "failure_message": message}


class ProcessLostError(RayActorError):  # type: ignore[misc]  # Ray is untyped
    """Ray itself ended the process of a trial, for example because a node ran out of memory."""

    def __init__(self, message: str, ran_out_of_memory: bool) -> None:
        super().__init__(error_msg=message)
        self.ran_out_of_memory = ran_out_of_memory

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the message and the flag when the error is pickled."""
        return type(self), (self.error_msg, self.ran_out_of_memory)


def is_out_of_memory(error: Exception | None) -> bool:
    """Whether Ray's memory monitor killed the process."""
    return isinstance(error, ProcessLostError) and error.ran_out_of_memory


@functools.cache
def teach_tune_of_killed_processes() -> None:
    """Let Tune start a trial again after Ray killed its process, for example by its memory monitor.

    Tune (Ray 2.60, `RayActorManager._actor_task_failed`) does not handle the class of that error and ends the whole
    sweep. Here the error becomes the loss of an actor, which Tune handles.
    """
    known = RayActorManager._actor_task_failed

    def handle(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = ProcessLostError(first_line(exception), isinstance(exception, OutOfMemoryError))
        known(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = handle
