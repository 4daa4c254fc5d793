"""What runs in the process that Tune gives a trial. It imports nothing of the driver's, which would take seconds.

In turn the driver, which only names this function, does without torch: a trial imports it when it runs.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from pwfn.errors import UserError
from pwfn.search.learning import lesson
from pwfn.search.study import SearchStudy
from pwfn.sweep.desk import warnings_noted
from pwfn.trial.failures import failure
from pwfn.trial.rows import Row, Trial


def run_proposal(proposal: dict[str, Any], *, study: SearchStudy, desk: Any) -> None:
    """Run one proposed trial in the process that Tune gave it, and tell Tune what its row says."""
    try:
        row = _run_or_recall(study.trial(proposal), study, desk)
    except UserError as error:  # the results cannot be written, so there is no row
        row = failure(error)
    told = ("state", "failure_class", "failure_message", "gpu_seconds", *study.space.learned_metrics)
    learned = lesson(study.space, study.store, row)
    tune.report({name: learned.get(name) for name in told})


def _run_or_recall(trial: Trial, study: SearchStudy, desk: Any) -> Row:
    """Run a trial, unless it has its row already: a process may be lost just after its row was written.

    Returns the row; for a trial that was told to stop, and goes on in a later sweep, only a state.
    """
    from pwfn.sweep.elsewhere import run_where_it_can

    written = study.store.read_trial(trial.trial_id)
    if written is not None:
        return written
    row = None
    if ray.get(desk.arrive.remote(trial.trial_id, ray.get_runtime_context().current_actor)):
        try:
            with warnings_noted(desk, trial.trial_id):
                row = run_where_it_can(trial, study, desk)
        finally:
            desk.leave.remote(trial.trial_id)
    return row or {"state": "interrupted"}
