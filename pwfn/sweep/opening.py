"""How a driver begins a study or goes on with one: everything is checked before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pwfn.errors import UserError
from pwfn.naming import counted
from pwfn.results.store import ResultsStore
from pwfn.search.study import (
    SearchStudy,
    check_inputs,
    check_study,
    is_untouched,
    moved_inputs,
    open_study,
    record_understood,
)
from pwfn.search.warm_start import require_fresh, require_studies, warm_start
from pwfn.sweep.ownership import LOOK_SECONDS, Ownership
from pwfn.trial.understood_lines import Understood

if TYPE_CHECKING:
    from pwfn.trial.fingerprint import Fingerprint

ALL_CLASSES = "all"
"""Stands for failures of any class in `Request.retry_failed`."""


@dataclass(frozen=True)
class Request:
    """What a user may ask for when a search starts, beside its space."""

    command: str | None = None
    """The command line, for the record; None keeps the recorded one."""
    force: bool = False
    """Go on although space, code or data differ."""
    join: bool = False
    """Share the study with drivers that run it."""
    warm_start: tuple[str, ...] = ()
    """Folders of other studies to learn from."""
    ray_temp_dir: str | None = None
    """Folder for Ray's own files; None takes Ray's."""
    retry_failed: str | None = None
    """Class of the failed trials that run again, or `ALL_CLASSES`."""
    only_float: bool = False
    """End when the float networks are made."""


def check_request(study: SearchStudy, request: Request) -> None:
    """Check what can be checked before anything is started, or planned.

    Raises:
        UserError: the study cannot be begun or continued like this.
    """
    require_studies(request.warm_start)
    check_study(study.space, study.store, force=request.force, is_shared=request.join)
    if not is_untouched(study.store):
        require_fresh(study, request.warm_start)
    if request.retry_failed is not None:
        failed_trials(study.store, request.retry_failed)


def open_together(
    study: SearchStudy,
    request: Request,
    ownership: Ownership,
    found: Mapping[str, tuple[Understood, Fingerprint]],
    say: Callable[[str], None],
) -> None:
    """Write study.json, or wait until the driver that came first has done so.

    Args:
        study: to be begun or continued.
        request: of the user.
        ownership: of this driver.
        found: what was understood of each float network, and the fingerprint of its data and checkpoint, by its key.
        say: prints a line.

    Raises:
        UserError: space, code or data differ from those with which the study began; then nothing was written.
    """
    space, store = study.space, study.store
    inputs = {key: fingerprint for key, (_, fingerprint) in found.items()}
    _wait(ownership, lambda: store.read_study() is not None, "to begin the study", say)
    is_shared = bool(ownership.others())
    check_study(space, store, inputs, force=request.force, is_shared=is_shared)
    if is_shared and store.read_study() is not None:
        return
    moved = moved_inputs(store.read_study() or {}, space)
    open_study(space, store, command=request.command, force=request.force)
    check_inputs(store, inputs, force=request.force, moved=moved)
    record_understood(store, {key: understood for key, (understood, _) in found.items()})
    if request.warm_start and is_untouched(store):
        store.clear_trials()  # they were proposed without it
    for line in warm_start(study, request.warm_start):
        say(f"warm start: {line}")


def wait_for_baselines(store: ResultsStore, keys: set[str], ownership: Ownership, say: Callable[[str], None]) -> None:
    """Wait while a driver that came first makes the float networks; return when all are there or it is gone."""
    _wait(
        ownership,
        lambda: all(store.read_record(f"baseline/{key}") is not None for key in keys),
        "to make the float networks",
        say,
    )


def forget_failed(store: ResultsStore, failure_class: str, say: Callable[[str], None]) -> None:
    """Delete what there is of failed trials, so that they run again with the same parameters and seeds.

    Raises:
        UserError: no trial has failed like this.
    """
    chosen = failed_trials(store, failure_class)
    for trial_id in chosen:
        store.delete_trial(trial_id)
    say(f"run again: {counted(len(chosen), 'failed trial')}, {', '.join(chosen)}")


def failed_trials(store: ResultsStore, failure_class: str) -> list[str]:
    """Name the trials that have failed with a class of failures, or with `ALL_CLASSES`.

    Raises:
        UserError: there is none.
    """
    failed = [row for row in store.read_trials() if row["state"] == "failed"]
    chosen = [row for row in failed if failure_class in (ALL_CLASSES, row["failure_class"])]
    if not chosen:
        classes = sorted({str(row["failure_class"]) for row in failed})
        there = f"those that failed are of the classes {', '.join(classes)}" if classes else "no trial has failed"
        kind = "" if failure_class == ALL_CLASSES else f" {failure_class}"
        raise UserError(f"--retry-failed{kind}: there is no such trial in {store.results}/{store.study}; {there}")
    return [str(row["trial_id"]) for row in chosen]


def _wait(ownership: Ownership, is_done: Callable[[], Any], purpose: str, say: Callable[[str], None]) -> None:
    """Wait until something is done, as long as a driver that came before this one lives."""
    has_said = False
    while not is_done() and (earlier := ownership.earlier()):
        if not has_said:
            say(f"waiting for {earlier[0]} {purpose}")
            has_said = True
        time.sleep(LOOK_SECONDS)
