"""A sweep: Optuna proposes trials, Ray Tune places them, each writes its own results.

The driver knows nothing that is not in the results folder: a proposal is written before its trial starts, so the
same command finishes what an earlier one began.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from pwfn.baseline import baseline_key
from pwfn.config import ResourcesConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.methods import RoundRecord
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.cluster import connected
from pwfn.search.inputs import Fingerprint, fingerprint_inputs
from pwfn.search.optuna_search import OptunaSearch
from pwfn.search.progress import Progress
from pwfn.search.retention import Retention
from pwfn.search.rows import Trial
from pwfn.search.space import SearchSpace
from pwfn.search.study import Study, check_inputs
from pwfn.search.trial import ensure_baseline, own_device, run_trial

log = logging.getLogger(__name__)

RESTARTS = 3
"""Times that a trial whose process was lost is started again; it goes on from its last round."""
PATIENCE = 600.0
"""Seconds for which a sweep waits for a store that is full or away."""


class Desk:
    """Where trials say which round they have finished, for whoever shows the progress."""

    def __init__(self) -> None:
        self._rounds: dict[str, str] = {}

    def post(self, trial_id: str, summary: str) -> None:
        """Note a trial's last round."""
        self._rounds[trial_id] = summary

    def rounds(self) -> dict[str, str]:
        """Return the last round of each trial."""
        return self._rounds


@dataclass(frozen=True)
class DeskListener:
    """Posts a trial's rounds; can be sent to any process."""

    desk: Any

    def __call__(self, trial: Trial, record: RoundRecord) -> None:
        """Post without waiting for the answer."""
        self.desk.post.remote(trial.trial_id, record.summary)


def run_sweep(study: Study, searcher: Searcher, desk: Any, callbacks: Sequence[tune.Callback]) -> None:
    """Run what the searcher proposes on the Ray that is joined, until it proposes nothing more.

    Raises:
        UserError: input that no trial can use; what is finished is kept.
    """
    stop = StopOnUserError()
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
                callbacks=[*callbacks, stop],
                stop=stop,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
            ),
        )
        tuner.fit()
    if stop.message is not None:
        raise UserError(stop.message)


def run_proposal(proposal: dict[str, Any], *, study: Study, desk: Any) -> None:
    """Run one proposed trial from the process that Tune gave it, and tell Tune what its row says."""
    trial = study.trial(proposal)
    listener = DeskListener(desk)
    if trial.config.resources.workers > 1:
        from pwfn.search.distributed import run_distributed  # seconds of import that a lone worker does without

        row = run_distributed(trial, study.store, listener)
    else:
        device = own_device(trial.config.resources)
        row = run_trial(trial, study.store, device=device, replicas=Replicas(), on_round=listener)
    told = ("state", "failure_class", "failure_message", *study.space.objectives)
    tune.report({name: row.get(name) for name in told})


class StopOnUserError(tune.Callback, tune.Stopper):  # type: ignore[misc]
    """Ends the sweep when a trial met input that every other trial would meet as well."""

    def __init__(self) -> None:
        self.message: str | None = None

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remember the message of a user's error."""
        if trial.last_result.get("failure_class") == "user":
            self.message = trial.last_result["failure_message"]

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Stop all once there is a message."""
        return self.message is not None


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
    """Count the trials that fit on the cluster as it is now, at most `search.max_concurrent`; at least 1."""
    total = ray.cluster_resources()
    resources = space.resources
    each = of_worker(resources)
    fitting = min(int(total.get(name, 0) // (amount * resources.workers)) for name, amount in each.items())
    limit = space.search.max_concurrent
    return max(1, fitting if limit is None else min(fitting, limit))


def check_resources(resources: ResourcesConfig) -> None:
    """Raise UserError if no trial can ever start on this cluster: Ray would wait without a word."""
    total = ray.cluster_resources()
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


def search(study: Study, *, address: str | None, console: Console, force: bool = False) -> None:
    """Run the trials that a study still lacks and show how it goes.

    Raises:
        UserError: input that no trial can use, a cluster that cannot hold a trial, or other data than the study began
            with where this is not to be forced; what is finished is kept.
    """
    space, store = study.space, study.store
    resources = space.resources
    with connected(address, dashboard=resources.workers > 1):
        check_resources(resources)
        configs = space.float_networks()
        with console.status(f"making {len({*map(baseline_key, configs)})} float networks"):
            inputs = make_baselines(configs, store)
        check_inputs(store, inputs, force=force)
        study = replace(study, store=replace(store, patience=PATIENCE))
        desk = ray.remote(num_cpus=0)(Desk).remote()
        retention = Retention(study)
        with Progress(study, desk, console) as progress:
            run_sweep(study, OptunaSearch(study), desk, [progress, retention])
    console.print(retention.summary)
    store.delete_scratch()
