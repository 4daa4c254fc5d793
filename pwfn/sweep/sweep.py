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

from pwfn.baseline import baseline_key
from pwfn.config import TrialConfig
from pwfn.errors import MachineError, TrialError, UserError
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.learning import lesson
from pwfn.search.pruning import referee_of
from pwfn.search.study import SearchStudy, check_inputs, record_understood
from pwfn.sweep.baselines import Baselines
from pwfn.sweep.cluster import connected
from pwfn.sweep.confirm import Confirmation
from pwfn.sweep.desk import Desk, warnings_noted
from pwfn.sweep.elsewhere import run_where_it_can
from pwfn.sweep.listed import Listed
from pwfn.sweep.lost import RESTARTS, teach_tune_of_killed_processes
from pwfn.sweep.placement import resources_of_trial, slots_asked_for, task_options
from pwfn.sweep.progress import Progress
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


def understand_all(configs: Iterable[TrialConfig]) -> dict[str, Understood]:
    """Open data and network of each float network where a trial would run; return what was understood of them.

    Raises:
        UserError: the model or the data cannot be used.
    """
    return _for_each_float_network(understand, configs)


def make_baselines(
    configs: Iterable[TrialConfig], store: ResultsStore, *, checkpoint_minutes: float
) -> dict[str, Fingerprint]:
    """Make each float network that trials start from, in a place where a trial would run; return its fingerprint.

    Raises:
        UserError: the model or the data cannot be used.
    """
    return _for_each_float_network(
        functools.partial(_make_baseline, store=store, checkpoint_minutes=checkpoint_minutes), configs
    )


def _make_baseline(config: TrialConfig, store: ResultsStore, checkpoint_minutes: float) -> Fingerprint:
    device = own_device(config.resources)
    ensure_baseline(config, store, device, Replicas(), checkpoint_minutes=checkpoint_minutes)
    return fingerprint_inputs(config)


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
    study: SearchStudy, *, address: str | None, console: Console, force: bool = False, confirm: int = 0
) -> str | None:
    """Run the trials that a study still lacks, and show how it goes; return why it stopped early, or None.

    With `confirm`, the trials on the front then run again, each with that many other seeds, until every trial on the
    front of the means has them.

    Raises:
        UserError: input that no trial can use; a cluster that cannot hold a trial; or data that differ from those with
            which the study began, and `force` is false. The results so far are kept.
        KeyboardInterrupt: a second Ctrl-C or SIGTERM; trials go on from their last rounds with the same command.
    """
    since = time.monotonic()
    space, store = study.space, study.store
    with connected(address, dashboard=space.resources.workers > 1):
        slots = slots_asked_for(space, address, console)
        configs = space.float_networks()
        understood = understand_all(configs)
        for found in understood.values():
            console.print(format_understood(found), markup=False, highlight=False, soft_wrap=True)
        record_understood(store, understood)
        with console.status(f"making {len({*map(baseline_key, configs)})} float networks"):
            inputs = make_baselines(configs, store, checkpoint_minutes=space.search.checkpoint_minutes)
        check_inputs(store, inputs, force=force)
        study = replace(study, store=replace(store, patience=PATIENCE))
        ended = store.read_trials()
        stopped_because = None
        if (baselines := Baselines(study, ended)).num_left:
            stopped_because = _run_all(_unpruned(study), baselines, ended, slots, since, console)
            ended = store.read_trials()
        if stopped_because is None:
            stopped_because = _run_all(study, OptunaSearch(study, ended), ended, slots, since, console)
        while confirm and stopped_because is None:
            ended = store.read_trials()
            replicates = Confirmation(study, confirm, ended)
            if replicates.num_left == 0:
                break
            stopped_because = _run_all(_unpruned(study), replicates, ended, slots, since, console)
    store.delete_scratch()
    return stopped_because


def _run_all(
    study: SearchStudy,
    searcher: OptunaSearch | Listed,
    ended: Sequence[Row],
    slots: int,
    since: float,
    console: Console,
) -> str | None:
    retention = Retention(study, ended)
    stopped_because = None
    if searcher.num_left > 0:  # else Tune would start only to end
        with open_desk(study) as desk:
            supervisor = Supervisor(study, desk, stop_proposing=searcher.stop, since=since, ended=ended)
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
