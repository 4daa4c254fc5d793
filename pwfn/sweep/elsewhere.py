"""Runs a trial in this process, or elsewhere where this place is to be avoided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pwfn.errors import MachineError
from pwfn.replicas import Replicas
from pwfn.search.study import SearchStudy
from pwfn.sweep.desk import DeskListener
from pwfn.sweep.placement import task_options
from pwfn.sweep.places import Place, end_process, has_room_outside, here, selector_without
from pwfn.trial.opening import own_device
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial

SECONDS_BETWEEN_LOOKS = 10.0
"""Seconds between two looks whether there still is room elsewhere."""


def run_where_it_can(trial: Trial, study: SearchStudy, desk: Any) -> Row | None:
    """Run a trial here, or, if this place is to be avoided, in a process elsewhere, while this one keeps the place.

    If the machine fails under it, the desk is told, and this process ends: Tune starts the trial again.
    """
    place, resources = here(), trial.config.resources
    avoided: list[Place] = ray.get(desk.avoided.remote(trial.trial_id)) if resources.workers == 1 else []
    if any(place.is_in(each) for each in avoided) and has_room_outside(resources, avoided):
        return _run_elsewhere(trial, study, desk, avoided)
    try:
        return _run(trial, study, desk)
    except MachineError as error:
        ray.get(desk.machine_failed.remote(trial.trial_id, place, error.failure_class, str(error)))
        end_process()


def _run_elsewhere(trial: Trial, study: SearchStudy, desk: Any, avoided: Sequence[Place]) -> Row | None:
    """Run a trial in a process of its own, as soon as there is room for it anywhere else."""
    options = task_options(trial.config.resources)
    selector = selector_without(avoided, whole_nodes_only=True)
    remote = ray.remote(run_where_it_can).options(**options, label_selector=selector or None, max_retries=0)
    task = remote.remote(trial, study, desk)
    while not ray.wait([task], timeout=SECONDS_BETWEEN_LOOKS)[0]:
        if not has_room_outside(trial.config.resources, avoided):  # a node was lost meanwhile
            ray.cancel(task, force=True)
            return _run(trial, study, desk)
    try:
        row: Row | None = ray.get(task)
    except RayTaskError:
        raise
    except RayError:  # that process is lost: so is this one, and Tune starts the trial again
        end_process()
    return row


def _run(trial: Trial, study: SearchStudy, desk: Any) -> Row | None:
    store, listener, minutes = study.store, DeskListener(desk), study.space.search.checkpoint_minutes
    if trial.config.resources.workers > 1:
        from pwfn.sweep.distributed import run_distributed  # takes seconds to import

        return run_distributed(trial, store, listener, desk=desk, checkpoint_minutes=minutes)
    device = own_device(trial.config.resources)
    return run_trial(trial, store, device=device, replicas=Replicas(), on_round=listener, checkpoint_minutes=minutes)
