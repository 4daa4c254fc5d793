"""The rows of trials whose own processes can write none any more."""

from __future__ import annotations

import datetime as dt

from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from pwfn.errors import first_line
from pwfn.results.store import ResultsStore
from pwfn.search.attempts import Attempt, cost, read_attempts
from pwfn.search.rows import Row, Trial, failure, trial_row


def lost_row(trial: Trial, store: ResultsStore, outcome: Row) -> Row:
    """Write and return the row of a trial that is given up, unless it has one."""
    written = store.read_trial(trial.trial_id)
    if written is not None:
        return written
    rounds = store.read_rounds(trial.trial_id)
    now = dt.datetime.now(dt.UTC)
    attempts = read_attempts(store, trial.trial_id) or [Attempt(now, now)]  # none where it never came to start
    spent = cost(attempts, rounds, num_gpus=trial.num_gpus, is_lost=True)
    row = trial_row(trial, {"rounds_done": len(rounds), **outcome}, spent)
    store.write_trial(row)
    store.delete_checkpoint(trial.trial_id)
    store.delete_attempts(trial.trial_id)
    return row


def cause_of_loss(error: Exception | None) -> Row:
    """Turn what Ray says of a process that it gave up into an outcome."""
    if is_out_of_memory(error):
        return failed("oom", "a node ran out of memory, and Ray killed the trial's process each time")
    if isinstance(error, RayTaskError):
        return failure(error.cause)
    reason = first_line(error) if error is not None else "unknown"
    return failed("lost", f"its process was lost each time it was started, the last time: {reason}")


def failed(failure_class: str, message: str) -> Row:
    """Build the outcome of a failure."""
    return {"state": "failed", "failure_class": failure_class, "failure_message": message}


def is_out_of_memory(error: Exception | None) -> bool:
    """Whether Ray's memory monitor killed the process."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, RayActorError) and "OOM" in str(error))
