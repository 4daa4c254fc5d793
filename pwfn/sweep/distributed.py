"""A trial with several data-parallel workers: Ray Train (V2) runs the same loop on each of them."""

from __future__ import annotations

from typing import Any

import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from pwfn.config import TrialConfig
from pwfn.replicas import Replicas
from pwfn.results.files import RefusedError
from pwfn.results.store import ResultsStore
from pwfn.sweep.lost import RESTARTS, cause_of_loss, lost_row
from pwfn.sweep.placement import of_worker
from pwfn.trial.decision import RoundListener
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial


def run_distributed(trial: Trial, store: ResultsStore, on_round: RoundListener) -> Row | None:
    """Run a trial on `resources.workers` processes of the cluster; return its row, or None if it was told to stop.

    Raises:
        RefusedError: the store could not be used for longer than its patience.
        ray.train.ControllerError: the process that watches the workers was lost; the trial can be started again.
    """
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
    except train.WorkerGroupError as error:
        (cause, *_) = error.worker_failures.values()
        refusal = getattr(cause, "cause", cause)
        if isinstance(refusal, RefusedError):  # not the trial's fault, as in `run_trial`
            raise refusal from error
        return lost_row(trial, store, cause_of_loss(cause))
    return store.read_trial(trial.trial_id)


def scaling(config: TrialConfig) -> train.ScalingConfig:
    """Describe to Ray Train what each worker occupies."""
    resources = config.resources
    return train.ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=of_worker(resources),
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
