"""A sweep: Optuna proposes trials, Ray Tune places them, each writes its own results.

All that the driver knows is in the results folder. A proposal is written there before its trial starts, so the same
command finishes what an earlier one began.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from pwfn.errors import UserError
from pwfn.search.study import SearchStudy
from pwfn.sweep.baselines import Baselines
from pwfn.sweep.cluster import connected
from pwfn.sweep.confirm import Confirmation
from pwfn.sweep.desk import open_desk
from pwfn.sweep.float_networks import make_baselines, understand_all
from pwfn.sweep.listed import Listed
from pwfn.sweep.lost import RESTARTS, teach_tune_of_killed_processes
from pwfn.sweep.opening import Request, check_request, forget_failed, open_together, wait_for_baselines
from pwfn.sweep.ownership import Ownership, owned
from pwfn.sweep.placement import resources_of_trial, slots_asked_for
from pwfn.sweep.progress import Progress, printer
from pwfn.sweep.retention import Retention
from pwfn.sweep.searchers import InTurn, OptunaSearch
from pwfn.sweep.supervision import Supervisor, signals_stop
from pwfn.sweep.trial_process import run_proposal
from pwfn.trial.rows import Row
from pwfn.trial.understood_lines import format_understood

NO_REQUEST = Request()
PATIENCE = 600.0
"""Seconds for which a sweep waits for a store that is full or cannot be reached."""


def run_sweep(
    study: SearchStudy,
    searcher: Searcher,
    desk: Any,
    supervisor: Supervisor,
    callbacks: Sequence[tune.Callback],
    slots: int,
) -> None:
    """Run what the searcher proposes on the joined Ray, at most `slots` trials at once.

    Raises:
        UserError: input that no trial can use, or trials that all fail alike; the results so far are kept.
    """
    teach_tune_of_killed_processes()
    with tempfile.TemporaryDirectory(prefix="pwfn-") as scratch:
        tuner = tune.Tuner(
            # Not `tune.with_parameters`: what it stores has to be fetched from the driver's node, and Ray (2.60) was
            # seen to wait for that for ever. Both are small and can travel with the function.
            tune.with_resources(
                functools.partial(run_proposal, study=study, desk=desk), resources_of_trial(study.space.resources)
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # no limit: the searcher says when there are no more
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=study.store.study,
                storage_path=scratch,  # Tune's own bookkeeping; ours is the results folder
                verbose=0,
                # First the supervisor: it writes the rows of lost trials, which the others read.
                callbacks=[supervisor, *callbacks],
                stop=supervisor,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
            ),
        )
        tuner.fit()
    if supervisor.error is not None:
        raise UserError(supervisor.error)


def search(
    study: SearchStudy, *, address: str | None, console: Console, confirm: int = 0, request: Request = NO_REQUEST
) -> str | None:
    """Run the trials that a study still lacks, and show how it goes; return why it stopped early, or None.

    With `confirm`, the trials on the front then run again, each with that many other seeds, until every trial on the
    front of the means has them.

    Raises:
        UserError: input that no trial can use; a cluster that cannot hold a trial; another driver that runs the study;
            or a study that was begun otherwise. The results so far are kept.
        KeyboardInterrupt: a second Ctrl-C or SIGTERM; trials go on from their last rounds with the same command.
    """
    since = time.monotonic()
    say = printer(console)
    check_request(study, request)
    with (
        owned(study.store, join=request.join, say=say) as ownership,
        connected(address, dashboard=study.space.resources.workers > 1, temp_dir=request.ray_temp_dir),
    ):
        slots = slots_asked_for(study.space, address, console)
        _begin(study, request, ownership, console, say)
        if request.only_float:
            return "only the float networks were asked for"
        study = replace(study, store=replace(study.store, patience=PATIENCE))
        run = functools.partial(_run_all, ownership=ownership, slots=slots, since=since, console=console)
        stopped_because = _run_phases(study, confirm, ownership, run)
        if not ownership.others():
            study.store.delete_scratch()
    return stopped_because


def _begin(
    study: SearchStudy, request: Request, ownership: Ownership, console: Console, say: Callable[[str], None]
) -> None:
    """Look at data and networks, then begin the study or go on with it, then make its float networks."""
    store, configs = study.store, study.space.float_networks()
    found = understand_all(configs)
    for understood, _ in found.values():
        say(format_understood(understood))
    open_together(study, request, ownership, found, say)
    if request.retry_failed is not None:
        forget_failed(store, request.retry_failed, say)
    if not ownership.others():
        store.clear_leftovers({row["trial_id"] for row in store.read_trials()})
    wait_for_baselines(store, set(found), ownership, say)
    make_baselines(configs, store, checkpoint_minutes=study.space.search.checkpoint_minutes, console=console)


def _run_phases(study: SearchStudy, confirm: int, ownership: Ownership, run: Callable[..., str | None]) -> str | None:
    """Run baselines and search, then the front again with other seeds; return why it stopped early, or None."""
    ended = study.store.read_trials()
    # In one run of Tune: the processes of the baselines, which took seconds to start, then run what is searched.
    searchers = InTurn(Baselines(study, ended, ownership), OptunaSearch(study, ended, ownership))
    stopped_because = run(study, searchers, ended)
    while confirm and stopped_because is None:
        ended = study.store.read_trials()
        replicates = Confirmation(study, confirm, ended, ownership)
        if replicates.num_left == 0:
            break
        search = study.space.search.model_copy(update={"pruning": None})
        unpruned = replace(study, space=replace(study.space, search=search))
        stopped_because = run(unpruned, replicates, ended)
    return stopped_because


def _run_all(
    study: SearchStudy,
    searcher: InTurn | Listed,
    ended: Sequence[Row],
    *,
    ownership: Ownership,
    slots: int,
    since: float,
    console: Console,
) -> str | None:
    retention = Retention(study, ended)
    stopped_because = None
    if searcher.num_left > 0:  # else Tune would start only to end
        with open_desk(study.store, study) as desk:
            supervisor = Supervisor(study, desk, stop_proposing=searcher.stop, since=since, ended=ended)
            ownership.on_lost = supervisor.request_stop
            progress = Progress(study, desk, console, ended, searcher.num_left)
            with signals_stop(supervisor, say=console.print), progress:
                run_sweep(study, searcher, desk, supervisor, [progress, retention], slots)
        stopped_because = supervisor.stopped_because
    console.print(retention.summary)
    return stopped_because
