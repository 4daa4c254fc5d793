"""A trial of several data-parallel workers: Ray Train runs the same loop on each (Ray Train V2)."""

from __future__ import annotations

from typing import Any

import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from pwfn.config import TrialConfig
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.losses import lost_row
from pwfn.search.rows import Row, Trial, failure
from pwfn.search.trial import RoundListener, run_trial

RESTARTS = 3
"""Times that a trial's workers are started again after one was lost; each goes on from the last round."""


def run_distributed(trial: Trial, store: ResultsStore, on_round: RoundListener) -> Row | None:
    """Run a trial on `resources.workers` processes of the cluster; return its row, None if it was told to stop."""
    trainer = TorchTrainer(
        _work,
        train_loop_config={"trial": trial, "store": store, "on_round": on_round},
        scaling_config=scaling(trial.config),
        torch_config=TorchConfig(backend="nccl" if trial.config.resources.gpus_per_worker > 0 else "gloo"),
        run_config=train.RunConfig(
            name=trial.trial_id,
            storage_path=store.scratch,
            failure_config=train.FailureConfig(max_failures=RESTARTS),
        ),
    )
    try:
        trainer.fit()
    except train.TrainingFailedError as error:
        return lost_row(trial, store, failure(cause_of(error)))
    return store.read_trial(trial.trial_id)


def scaling(config: TrialConfig) -> train.ScalingConfig:
    """Say what each worker occupies."""
    resources = config.resources
    each = {"CPU": resources.cpus_per_worker, **resources.custom}
    if resources.gpus_per_worker > 0:
        each["GPU"] = resources.gpus_per_worker
    return train.ScalingConfig(
        num_workers=resources.workers, use_gpu=resources.gpus_per_worker > 0, resources_per_worker=each
    )


def _work(arguments: dict[str, Any]) -> None:
    trial: Trial = arguments["trial"]
    context = train.get_context()
    torch.set_num_threads(max(1, int(trial.config.resources.cpus_per_worker)))
    run_trial(
        trial,
        arguments["store"],
        device=get_device(),
        replicas=Replicas(context.get_world_rank(), context.get_world_size()),
        on_round=arguments["on_round"],
    )


def cause_of(error: train.TrainingFailedError) -> BaseException:
    """Find the error that ended the first worker, where it was a worker's."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    return next(iter(failures.values()), error)
