"""A sweep: Optuna proposes trials, Ray Tune places them, each writes its own results.

All that the driver knows is in the results folder. A proposal is written there before its trial starts, so the same
command finishes what an earlier one began.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from pwfn.baseline import Tell, baseline_key
from pwfn.config import TrialConfig
from pwfn.errors import MachineError, TrialError, UserError
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.learning import lesson
from pwfn.search.pruning import referee_of
from pwfn.search.study import SearchStudy
from pwfn.sweep.baselines import Baselines
from pwfn.sweep.cluster import connected
from pwfn.sweep.confirm import Confirmation
from pwfn.sweep.desk import Desk, warnings_noted
from pwfn.sweep.distributed import train_float_network
from pwfn.sweep.elsewhere import run_where_it_can
from pwfn.sweep.float_progress import watched
from pwfn.sweep.listed import Listed
from pwfn.sweep.lost import RESTARTS, teach_tune_of_killed_processes
from pwfn.sweep.opening import Request, check_request, forget_failed, open_together, wait_for_baselines
from pwfn.sweep.ownership import Ownership, owned
from pwfn.sweep.placement import resources_of_trial, slots_asked_for, task_options
from pwfn.sweep.progress import Progress, printer
from pwfn.sweep.retention import Retention
from pwfn.sweep.searchers import OptunaSearch
from pwfn.sweep.supervision import Supervisor, signals_stop
from pwfn.trial.failures import as_machine_error, failure
from pwfn.trial.fingerprint import Fingerprint, fingerprint_inputs
from pwfn.trial.float_network import ensure_baseline
from pwfn.trial.opening import own_device
from pwfn.trial.rows import Row, Trial
from pwfn.trial.understood import Understood, format_understood, understand

Result = TypeVar("Result")

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


def understand_all(configs: Iterable[TrialConfig]) -> dict[str, tuple[Understood, Fingerprint]]:
    """Open data and network of each float network where a trial would run; return what was understood of them.

    Raises:
        UserError: the model or the data cannot be used.
    """
    return _for_each_float_network(_understand, configs)


def _understand(config: TrialConfig) -> tuple[Understood, Fingerprint]:
    own_device(config.resources)  # raises where there is no GPU, before anything is written
    return understand(config), fingerprint_inputs(config)


def make_baselines(
    configs: Iterable[TrialConfig], store: ResultsStore, *, checkpoint_minutes: float, console: Console
) -> None:
    """Make each float network that trials start from, in a place where a trial would run; show how far they are.

    One that is trained is trained by all workers of a trial together.

    Raises:
        UserError: the model or the data cannot be used, or the training diverges.
    """
    distinct = {baseline_key(config): config for config in configs}
    several = [each for each in distinct.values() if each.resources.workers > 1 and each.baseline.epochs > 0]
    alone = [each for each in distinct.values() if each not in several]
    with watched(console) as tell:
        make = functools.partial(_make_baseline, store=store, checkpoint_minutes=checkpoint_minutes, tell=tell)
        _for_each_float_network(make, alone)
        for config in several:
            train_float_network(config, store, tell, checkpoint_minutes=checkpoint_minutes)


def _make_baseline(config: TrialConfig, store: ResultsStore, checkpoint_minutes: float, tell: Tell) -> None:
    device = own_device(config.resources)
    ensure_baseline(config, store, device, Replicas(), checkpoint_minutes=checkpoint_minutes, tell=tell)


def _for_each_float_network(
    function: Callable[[TrialConfig], Result], configs: Iterable[TrialConfig]
) -> dict[str, Result]:
    """Call a function for one configuration of each float network, as a task of Ray's; return what it gave, by key."""
    distinct = {baseline_key(config): config for config in configs}
    remote = ray.remote(max_calls=1, max_retries=RESTARTS, retry_exceptions=[MachineError])(_result_or_message)
    pending = [
        remote.options(**task_options(config.resources)).remote(function, config) for config in distinct.values()
    ]
    try:
        found = ray.get(pending)
    except RayTaskError as error:
        if (machine := as_machine_error(error.cause)) is None:
            raise
        raise UserError(f"the machine failed {RESTARTS + 1} times ({machine.failure_class}: {machine})") from error
    results = {}
    for key, (result, message) in zip(distinct, found, strict=True):
        if message is not None:
            raise UserError(message)
        results[key] = result
    return results


def _result_or_message(
    function: Callable[[TrialConfig], Result], config: TrialConfig
) -> tuple[Result | None, str | None]:
    """Return what a function gives, or the message of its error: Ray would add a traceback to an exception.

    Raises:
        MachineError: the machine failed; the function is called again, in another process.
    """
    try:
        return function(config), None
    except Exception as error:
        if (machine := as_machine_error(error)) is not None:
            raise machine from error
        if isinstance(error, UserError | TrialError):
            return None, str(error)
        raise


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
    """Run the baselines, the search, and the front again with other seeds; return why it stopped early, or None."""
    ended = study.store.read_trials()
    if (baselines := Baselines(study, ended, ownership)).num_left:
        stopped_because = run(_unpruned(study), baselines, ended)
        if stopped_because is not None:
            return stopped_because
        ended = study.store.read_trials()
    stopped_because = run(study, OptunaSearch(study, ended, ownership), ended)
    while confirm and stopped_because is None:
        ended = study.store.read_trials()
        replicates = Confirmation(study, confirm, ended, ownership)
        if replicates.num_left == 0:
            break
        stopped_because = run(_unpruned(study), replicates, ended)
    return stopped_because


def _run_all(
    study: SearchStudy,
    searcher: OptunaSearch | Listed,
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
        with open_desk(study) as desk:
            supervisor = Supervisor(study, desk, stop_proposing=searcher.stop, since=since, ended=ended)
            ownership.on_lost = supervisor.request_stop
            progress = Progress(study, desk, console, ended, searcher.num_left)
            with signals_stop(supervisor, say=console.print), progress:
                run_sweep(study, searcher, desk, supervisor, [progress, retention], slots)
        stopped_because = supervisor.stopped_because
    console.print(retention.summary)
    return stopped_because


def _unpruned(study: SearchStudy) -> SearchStudy:
    search = study.space.search.model_copy(update={"pruning": None})
    return replace(study, space=replace(study.space, search=search))


@contextmanager
def open_desk(study: SearchStudy) -> Iterator[Any]:
    """Run a desk on the node of the driver, so that no lost node can take it along; if it dies, Ray starts it again."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Desk)
    desk = remote.options(scheduling_strategy=here).remote(referee_of(study.space), study)
    try:
        yield desk
    finally:
        ray.kill(desk)  # Tune keeps a reference to it, so it would stay, with half a gigabyte
