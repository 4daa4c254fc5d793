"""A sweep: Optuna proposes trials, Ray Tune places them, each writes its own results.

The driver knows nothing that is not in the results folder: a proposal is written before its trial starts, so the
same command finishes what an earlier one began.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from pwfn.baseline import baseline_key
from pwfn.config import ResourcesConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.cluster import connected
from pwfn.search.confirm import Confirmation
from pwfn.search.constraints import total_violation
from pwfn.search.desk import Desk, DeskListener, warnings_noted
from pwfn.search.inputs import Fingerprint, fingerprint_inputs
from pwfn.search.losses import teach_tune_of_killed_processes
from pwfn.search.optuna_search import OptunaSearch
from pwfn.search.progress import Progress
from pwfn.search.pruning import Referee
from pwfn.search.retention import Retention
from pwfn.search.rows import Row, Trial, failure
from pwfn.search.space import SearchSpace
from pwfn.search.study import Study, check_inputs
from pwfn.search.supervision import Supervisor, signals_stop
from pwfn.search.trial import ensure_baseline, own_device, run_trial

RESTARTS = 3
"""Times that a trial whose process was lost is started again; it goes on from its last round."""
PATIENCE = 600.0
"""Seconds for which a sweep waits for a store that is full or away."""


def run_sweep(
    study: Study, searcher: Searcher, desk: Any, supervisor: Supervisor, callbacks: Sequence[tune.Callback]
) -> None:
    """Run what the searcher proposes on the Ray that is joined, until it proposes nothing more.

    Raises:
        UserError: input that no trial can use, or trials that all fail alike; what is finished is kept.
    """
    teach_tune_of_killed_processes()
    with tempfile.TemporaryDirectory(prefix="pwfn-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(run_proposal, study=study, desk=desk), resources_of_trial(study.space.resources)
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # the searcher knows the end
                max_concurrent_trials=num_slots(study.space),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=study.store.study,
                storage_path=scratch,  # Tune's own bookkeeping; ours is the results folder
                verbose=0,
                callbacks=[*callbacks, supervisor],
                stop=supervisor,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
            ),
        )
        tuner.fit()
    if supervisor.error is not None:
        raise UserError(supervisor.error)


def run_proposal(proposal: dict[str, Any], *, study: Study, desk: Any) -> None:
    """Run one proposed trial from the process that Tune gave it, and tell Tune what its row says."""
    try:
        row = _run_or_recall(study.trial(proposal), study, desk)
    except UserError as error:  # the results cannot be written, so there is no row
        row = failure(error)
    told = ("state", "failure_class", "failure_message", "gpu_seconds", *study.space.told_metrics)
    tune.report({name: row.get(name) for name in told})


def _run_or_recall(trial: Trial, study: Study, desk: Any) -> Row:
    """Run a trial, unless it has ended already: its process may be lost when its row is written, and none of it twice.

    Returns its row, or a state alone for a trial that was told to stop and goes on in a later sweep.
    """
    written = study.store.read_trial(trial.trial_id)
    if written is not None:
        return written
    row = None
    if ray.get(desk.arrive.remote(trial.trial_id, ray.get_runtime_context().current_actor)):
        try:
            with warnings_noted(desk, trial.trial_id):
                row = _run(trial, study.store, DeskListener(desk))
        finally:
            desk.leave.remote(trial.trial_id)
    return row or {"state": "interrupted"}


def _run(trial: Trial, store: ResultsStore, listener: DeskListener) -> Row | None:
    if trial.config.resources.workers > 1:
        from pwfn.search.distributed import run_distributed  # seconds of import that a lone worker does without

        return run_distributed(trial, store, listener)
    device = own_device(trial.config.resources)
    return run_trial(trial, store, device=device, replicas=Replicas(), on_round=listener)


def resources_of_trial(resources: ResourcesConfig) -> dict[str, float]:
    """Return what Tune reserves for a trial's own process.

    A trial of several workers only waits for them: it takes no CPU, or trials would hold what their workers need.
    Tune refuses a request of nothing, hence one byte of memory.
    """
    if resources.workers > 1:
        return {"CPU": 0, "memory": 1}
    return of_worker(resources)


def of_worker(resources: ResourcesConfig) -> dict[str, float]:
    """Return what one worker occupies, in Ray's names."""
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker > 0 else {}
    return {"CPU": resources.cpus_per_worker, **gpus, **resources.custom}


def num_slots(space: SearchSpace) -> int:
    """Count the trials that fit on the cluster, at most `search.max_concurrent`; at least 1."""
    total = capacity()
    resources = space.resources
    each = of_worker(resources)
    fitting = min(int(total.get(name, 0) // (amount * resources.workers)) for name, amount in each.items())
    limit = space.search.max_concurrent
    return max(1, fitting if limit is None else min(fitting, limit))


def capacity() -> dict[str, float]:
    """Add up what the cluster has, or what it will have once its autoscaler has started all nodes that it may."""
    total: dict[str, float] = ray.cluster_resources()
    # Ray has no public way to ask its autoscaler for its limits; Ray Train and Ray Data ask like this (Ray 2.60).
    limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return {name: max(total.get(name, 0), limits.get(name, 0)) for name in {*total, *limits}}


def check_resources(resources: ResourcesConfig) -> None:
    """Raise UserError if no trial can ever start on this cluster: Ray would wait without a word."""
    total = capacity()
    for name, amount in of_worker(resources).items():
        needed = amount * resources.workers
        if total.get(name, 0) < needed:
            field = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}.get(name, f"custom.{name}")
            raise UserError(
                f"a trial needs {needed:g} {name} (resources.workers={resources.workers} times "
                f"resources.{field}={amount:g}), but the cluster has {total.get(name, 0):g}; "
                f"try --set resources.{field}=... or --set resources.workers=..."
            )


def make_baselines(configs: Iterable[TrialConfig], store: ResultsStore) -> dict[str, Fingerprint]:
    """Make each float network that trials start from, once, where a trial would run; return what each comes from.

    Raises:
        UserError: the model or the data cannot be used.
    """
    distinct = {baseline_key(config): config for config in configs}
    remote = ray.remote(_make_baseline)
    pending = [remote.options(**_task_options(config.resources)).remote(config, store) for config in distinct.values()]
    inputs = {}
    for key, found in zip(distinct, ray.get(pending), strict=True):
        if isinstance(found, str):
            raise UserError(found)
        inputs[key] = found
    return inputs


def _make_baseline(config: TrialConfig, store: ResultsStore) -> Fingerprint | str:
    """Return the message of a user's error: an exception would arrive with a remote traceback in its text."""
    try:
        ensure_baseline(config, store, own_device(config.resources), Replicas())
        return fingerprint_inputs(config)
    except UserError as error:
        return str(error)


def _task_options(resources: ResourcesConfig) -> dict[str, Any]:
    return {
        "num_cpus": resources.cpus_per_worker,
        "num_gpus": resources.gpus_per_worker,
        "resources": resources.custom,
    }


def search(study: Study, *, address: str | None, console: Console, force: bool = False, confirm: int = 0) -> str | None:
    """Run the trials that a study still lacks and show how it goes; return why it stopped before, if it did.

    With `confirm`, the trials on the front then run again, each with so many other seeds.

    Raises:
        UserError: input that no trial can use, a cluster that cannot hold a trial, or other data than the study began
            with where this is not to be forced; what is finished is kept.
        KeyboardInterrupt: a second Ctrl-C or SIGTERM; trials go on from their last rounds with the same command.
    """
    since = time.monotonic()
    space, store = study.space, study.store
    resources = space.resources
    with connected(address, dashboard=resources.workers > 1):
        check_resources(resources)
        configs = space.float_networks()
        with console.status(f"making {len({*map(baseline_key, configs)})} float networks"):
            inputs = make_baselines(configs, store)
        check_inputs(store, inputs, force=force)
        study = replace(study, store=replace(store, patience=PATIENCE))
        stopped_because = _search_all(study, OptunaSearch(study), since, console)
        if confirm and stopped_because is None:
            stopped_because = _search_all(_unpruned(study), Confirmation(study, confirm), since, console)
    store.delete_scratch()
    return stopped_because


def _search_all(study: Study, searcher: OptunaSearch | Confirmation, since: float, console: Console) -> str | None:
    desk = start_desk(study)
    supervisor = Supervisor(study, desk, stop_proposing=searcher.stop, since=since)
    retention = Retention(study)
    progress = Progress(study, desk, console, searcher.num_left)
    with signals_stop(supervisor, say=console.print), progress:
        run_sweep(study, searcher, desk, supervisor, [progress, retention])
    console.print(retention.summary)
    return supervisor.stopped_because


def _unpruned(study: Study) -> Study:
    search = study.space.search.model_copy(update={"pruning": None})
    return replace(study, space=replace(study.space, search=search))


def start_desk(study: Study) -> Any:
    """Start the desk on the driver's own node, so that no lost node takes it along; if it dies, it starts anew."""
    search = study.space.search
    referee = None
    if search.pruning is not None:
        violation = functools.partial(total_violation, study.space.constraints)
        referee = Referee(search.pruning, study.space.objectives, violation, search.batch)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Desk)
    return desk.options(scheduling_strategy=here).remote(referee, study)
