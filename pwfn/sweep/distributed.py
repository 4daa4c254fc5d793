"""A trial with several data-parallel workers: Ray Train (V2) runs the same loop on each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch
from ray import train
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from pwfn.config import TrialConfig
from pwfn.errors import MachineError, TrialError, UserError
from pwfn.float_network import baseline_key, nobody_is_told
from pwfn.replicas import Replicas
from pwfn.results.files import RefusedError
from pwfn.results.store import ResultsStore
from pwfn.stopping import in_thread
from pwfn.sweep.float_board import Teller
from pwfn.sweep.lost import RESTARTS, cause_of_loss, lost_row
from pwfn.sweep.placement import of_worker
from pwfn.sweep.places import Place, has_room_outside, here, selector_without
from pwfn.trial.decision import RoundListener
from pwfn.trial.failures import as_machine_error
from pwfn.trial.float_network import ensure_baseline
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial

TRAINERS = 2
"""Times that Ray Train is set up for a trial: while it runs it cannot be told to keep away from a place."""


def run_distributed(
    trial: Trial, store: ResultsStore, on_round: RoundListener, *, desk: Any = None, checkpoint_minutes: float
) -> Row | None:
    """Run a trial on `resources.workers` processes of the cluster; return its row, or None if it was told to stop.

    Workers that are lost, or whose machine fails, are started again `RESTARTS` times, half of them away from the places
    that the desk says to avoid by then.

    Raises:
        RefusedError: the store could not be used for longer than its patience.
        ray.train.ControllerError: the process that watches the workers was lost; the trial can be started again.
    """
    arguments = {
        "trial": trial,
        "store": store,
        "on_round": on_round,
        "desk": desk,
        "checkpoint_minutes": checkpoint_minutes,
    }
    outcome: Row = {}
    for _ in range(TRAINERS):
        avoided = [] if desk is None else ray.get(desk.avoided.remote(trial.trial_id))
        if avoided and not has_room_outside(trial.config.resources, [place.whole_node for place in avoided]):
            avoided = []
        try:
            _trainer(trial, store, arguments, avoided).fit()
            return store.read_trial(trial.trial_id)
        except train.WorkerGroupError as error:
            (cause, *_) = error.worker_failures.values()
            refusal = getattr(cause, "cause", cause)
            if isinstance(refusal, RefusedError):  # not the trial's fault, as in `run_trial`
                raise refusal from error
            outcome = cause_of_loss(cause)
    return lost_row(trial, store, outcome)


def train_float_network(config: TrialConfig, store: ResultsStore, tell: Teller, *, checkpoint_minutes: float) -> None:
    """Train a float network on `resources.workers` processes of the cluster, if it is not kept yet.

    Workers that are lost are started again `RESTARTS` times; they go on from the last checkpoint.

    Raises:
        RefusedError: the store could not be used for longer than its patience.
        UserError: the training cannot go on, or the workers were lost too often.
    """
    key = baseline_key(config)
    if store.read_baseline(key) is not None:
        return
    arguments = {"config": config, "store": store, "tell": tell, "checkpoint_minutes": checkpoint_minutes}
    try:
        in_thread(_make_trainer(_work_on_float_network, arguments, f"baseline-{key}", config, store, RESTARTS).fit)
    except train.WorkerGroupError as error:
        (cause, *_) = error.worker_failures.values()
        refusal = getattr(cause, "cause", cause)
        if isinstance(refusal, RefusedError):
            raise refusal from error
        raise UserError(f"the float network's workers were lost {RESTARTS + 1} times ({refusal})") from error
    if (message := ray.get(tell.board.refusal.remote())) is not None:
        raise UserError(message)


def _work_on_float_network(arguments: dict[str, Any]) -> None:
    context = train.get_context()
    config, tell = arguments["config"], arguments["tell"]
    torch.set_num_threads(max(1, int(config.resources.cpus_per_worker)))
    replicas = Replicas(context.get_world_rank(), context.get_world_size())
    try:
        ensure_baseline(
            config,
            arguments["store"],
            get_device(),
            replicas,
            checkpoint_minutes=arguments["checkpoint_minutes"],
            tell=tell if replicas.is_first else nobody_is_told,
        )
    except (UserError, TrialError) as error:
        if isinstance(error, MachineError):
            raise
        ray.get(tell.board.refuse.remote(str(error)))  # all workers raise it, and would in vain be started again


def _trainer(trial: Trial, store: ResultsStore, arguments: dict[str, Any], avoided: Sequence[Place]) -> TorchTrainer:
    restarts = (RESTARTS + 1) // TRAINERS - 1
    return _make_trainer(_work, arguments, trial.trial_id, trial.config, store, restarts, avoided)


def _make_trainer(
    work: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    name: str,
    config: TrialConfig,
    store: ResultsStore,
    restarts: int,
    avoided: Sequence[Place] = (),
) -> TorchTrainer:
    return TorchTrainer(
        work,
        train_loop_config=arguments,
        scaling_config=scaling(config, avoided),
        torch_config=TorchConfig(backend="nccl" if config.resources.gpus_per_worker > 0 else "gloo"),
        run_config=train.RunConfig(
            name=name, storage_path=store.scratch, failure_config=train.FailureConfig(max_failures=restarts)
        ),
    )


def scaling(config: TrialConfig, avoided: Sequence[Place] = ()) -> train.ScalingConfig:
    """Describe to Ray Train what each worker occupies, and the nodes to keep away from."""
    resources = config.resources
    return train.ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=of_worker(resources),
        label_selector=selector_without(avoided, whole_nodes_only=False) or None,
    )


def _work(arguments: dict[str, Any]) -> None:
    trial: Trial = arguments["trial"]
    context = train.get_context()
    torch.set_num_threads(max(1, int(trial.config.resources.cpus_per_worker)))
    try:
        run_trial(
            trial,
            arguments["store"],
            device=get_device(),
            replicas=Replicas(context.get_world_rank(), context.get_world_size()),
            on_round=arguments["on_round"],
            checkpoint_minutes=arguments["checkpoint_minutes"],
        )
    except Exception as error:
        machine, desk = as_machine_error(error), arguments["desk"]
        if machine is not None and desk is not None:
            ray.get(desk.machine_failed.remote(trial.trial_id, here(), machine.failure_class, str(machine)))
        raise
