"""One trial, in whatever process it runs. What it finishes is in the store before anybody is told of it."""

from __future__ import annotations

import dataclasses
import functools
import logging

import torch
from safetensors.torch import load, save
from torch import nn

from pwfn.baseline import Baseline, baseline_key, make_baseline
from pwfn.clock import now
from pwfn.config import DataConfig, ModelConfig, ResourcesConfig, TrialConfig
from pwfn.data import Data, Preprocessing, Source, open_source
from pwfn.errors import NonFiniteLossError, TrialError, UserError
from pwfn.export import ModelMetadata, describe_network, encode_network
from pwfn.methods import METHODS, Method, RoundRecord, run_rounds
from pwfn.models import (
    build_network,
    check_has_weights,
    check_head_is_trained,
    describe_loading,
    preprocessing_of,
    record_preparation_,
)
from pwfn.naming import PointName
from pwfn.parameters import shares_left_out
from pwfn.replicas import Replicas
from pwfn.results.files import RefusedError
from pwfn.results.store import ResultsStore
from pwfn.seeds import derive_seed
from pwfn.task import Task
from pwfn.trial.attempts import Attempts
from pwfn.trial.decision import Decision, RoundListener
from pwfn.trial.names import check_beats_chance, check_names, check_same_names
from pwfn.trial.rows import (
    Row,
    Trial,
    accuracy_columns,
    commit,
    failure,
    ran_out_of_memory,
    round_row,
    trial_row,
    versions,
)

log = logging.getLogger(__name__)


def run_trial(
    trial: Trial, store: ResultsStore, *, device: torch.device, replicas: Replicas, on_round: RoundListener
) -> Row | None:
    """Run a trial to its end, from its last checkpoint if it has one, and return the row that is now in the store.

    Returns None for a trial that was told to stop: it has no row, and when it is run again it goes on from its last
    round. A failure becomes a row too. With several replicas, only failures that all of them meet at the same time are
    caught here; any other failure must end the process, because the other replicas would wait for it for ever.

    Raises:
        RefusedError: the store could not be used for longer than its patience.
    """
    caught = Exception if replicas.world_size == 1 else NonFiniteLossError
    with Attempts(store, trial.trial_id, is_writer=replicas.is_first) as attempts:
        try:
            outcome = _run_in_memory(trial, store, device, replicas, on_round)
        except RefusedError:  # not the trial's fault: it gets no row, and goes on when the store can be used again
            raise
        except caught as error:
            if not isinstance(error, UserError | TrialError):  # these explain themselves; any other needs its traceback
                log.exception("trial %s failed", trial.trial_id)
            outcome = failure(error)
        if outcome is None:
            return None
        row = trial_row(trial, outcome, attempts.cost(trial.num_gpus))
        if replicas.is_first:
            store.write_trial(row)
    if replicas.is_first:
        store.delete_checkpoint(trial.trial_id)
        store.delete_attempts(trial.trial_id)
    return row


def _run_in_memory(
    trial: Trial, store: ResultsStore, device: torch.device, replicas: Replicas, on_round: RoundListener
) -> Row | None:
    """Run a trial; if memory runs out, go on from its last round with each batch split into twice as many parts.

    The gradients of the parts add up to the gradient of the batch, so it is still the same experiment. One of several
    replicas that runs out of memory must end, because the others would wait for it; when all are started again, they
    read the number of parts that it noted.
    """
    while True:
        micro_batches = store.read_micro_batches(trial.trial_id)
        try:
            return _run(trial, store, device, replicas, on_round, micro_batches)
        except (RuntimeError, MemoryError) as error:
            is_smallest = 2 * micro_batches > trial.config.training.batch_size // replicas.world_size
            if is_smallest or not ran_out_of_memory(error):
                raise
            store.write_micro_batches(trial.trial_id, 2 * micro_batches)
            if replicas.world_size > 1:
                raise
            log.warning("trial %s is out of memory: now %d parts per batch", trial.trial_id, 2 * micro_batches)


def _run(
    trial: Trial,
    store: ResultsStore,
    device: torch.device,
    replicas: Replicas,
    on_round: RoundListener,
    micro_batches: int,
) -> Row | None:
    baseline = ensure_baseline(trial.config, store, device, replicas)
    task = open_task(trial.config, trial.config.model.without_weights, device, replicas, micro_batches)
    task.network.load_state_dict(dict(baseline.state))
    task = task.ready()
    checkpoint = store.read_checkpoint(trial.trial_id)
    method = METHODS[trial.config.method.name](task)
    for record in run_rounds(method, load(checkpoint) if checkpoint else None):
        decision = Decision.CONTINUE
        if record.is_whole and not record.is_last:
            _leave_point(trial, method, baseline, record, store)
        if replicas.is_first:
            row = {**round_row(trial, record), "float_val_top1": baseline.validation.top1}
            store.append_round(trial.trial_id, row)
            if not record.is_last:
                store.write_checkpoint(trial.trial_id, save(dict(record.state())))
            decision = on_round(row, record.summary)
        log.info("trial %s %s", trial.trial_id, record.summary)
        decision = Decision(replicas.agree(decision, device))
        if decision is Decision.STOP and not record.is_last:
            return None
        if decision is Decision.PRUNE and not record.is_last:
            return {"state": "pruned", **_measured(task, baseline, record)}
    return _outcome(trial, method, baseline, record, store)


def _leave_point(trial: Trial, method: Method, baseline: Baseline, record: RoundRecord, store: ResultsStore) -> None:
    """Measure and write the whole network that a stage before the last has ended in; the trial goes on.

    Its row has no costs of its own: the trial's row has those of all stages, the rounds have each one's.
    """
    name = str(PointName.read(trial.trial_id)._replace(stage=record.stage))
    point = dataclasses.replace(trial, trial_id=name)
    outcome = _outcome(point, method, baseline, record, store)
    if method.task.replicas.is_first:
        store.write_trial({**trial_row(point, outcome), "finished_at": now()})


def _measured(task: Task, baseline: Baseline, record: RoundRecord) -> Row:
    """Columns of every trial that finished at least one round: its fixed weights, and its validation accuracy."""
    sets = task.parameter_sets
    return {
        **accuracy_columns("val", record.after),
        "val_top1_before": record.before.top1,
        "float_val_top1": baseline.validation.top1,
        "float_test_top1": baseline.test.top1,
        **dataclasses.asdict(record.metrics),
        "coverage": sets.coverage,
        "left_out": shares_left_out(task.network, sets),
        "num_weights": sets.num_fixable,
        "num_broken_images": task.count_broken(),
        "recalibrated_bn": record.recalibrated_bn,
        "untreated_layers": record.fixing.untreated_layers,
        "rounds_done": record.round + 1,
        "micro_batches": task.micro_batches,
    }


def _outcome(trial: Trial, method: Method, baseline: Baseline, last: RoundRecord, store: ResultsStore) -> Row:
    """Measure a whole network and write it; the validation accuracy is that of the last record."""
    task = method.task
    outcome = {
        "state": "complete",
        "stage": last.stage if method.num_stages > 1 else None,
        **_measured(task, baseline, last),
        **accuracy_columns("test", task.measure("test")),
        **accuracy_columns("test", last.test_before, "_before"),
        "ensemble_test_top1": last.ensemble_test_top1,
    }
    if task.replicas.is_first:
        store.write_values(trial.trial_id, last.fixing.codebook)
        model = encode_network(
            task.network,
            _metadata(trial, task, outcome),
            include_norm=trial.config.include_norm,
            sigmas=method.sigmas(),
        )
        store.write_model(trial.trial_id, model)
        num_parameters = sum(parameter.numel() for parameter in task.network.parameters())
        outcome |= {"size_bytes": len(model), "compression_ratio": 4 * num_parameters / len(model)}
    return outcome


def ensure_baseline(config: TrialConfig, store: ResultsStore, device: torch.device, replicas: Replicas) -> Baseline:
    """Read the float network that this trial starts from; if there is none yet, make it and keep it.

    A sweep makes it before its first trial. Several trials may call this at once only when it is already made.
    """
    key, source = baseline_key(config), open_data(config)
    kept = store.read_baseline(key)
    if kept is not None:
        check_same_names(kept[1].get("classes"), source, f"the float network in {store.results}/{store.study}")
        return Baseline.from_bytes(*kept)
    check_has_weights(config)
    of_study = config.model_copy(update={"seed": config.split_seed})
    task = open_task(of_study, config.model, device, replicas)
    check_names(config, source, task.network)
    check_head_is_trained(config, task.network)
    understood = describe_loading(task.network, include_norm=config.include_norm)
    for line in understood.lines():
        log.log(logging.WARNING if line.startswith("warning") else logging.INFO, line)
    baseline = make_baseline(task)
    check_beats_chance(config, source, baseline.validation)
    if replicas.is_first:
        store.write_baseline(key, baseline.to_bytes(), {**baseline.card, "classes": list(source.class_names)})
    return baseline


def open_task(
    config: TrialConfig, model: ModelConfig, device: torch.device, replicas: Replicas, micro_batches: int = 1
) -> Task:
    """Build a network and the data it is given, on a device."""
    network = network_for(config, model, open_data(config))
    data = _data(config.data, config.split_seed, preprocessing_of(network), device)
    return Task(network.to(device), data, config, device, replicas, micro_batches)


def open_data(config: TrialConfig) -> Source:
    """Open the data of a trial, or take it as it was opened for the trial before in this process."""
    return _source(config.data, config.split_seed)


def network_for(config: TrialConfig, model: ModelConfig, source: Source) -> nn.Module:
    """Build a network for the classes and channels of the data, with the size and crop that the configuration asks for.

    Args:
        config: of the trial.
        model: the trial's, or another that only says how the network is built.
        source: the data.
    """
    network = build_network(
        model,
        num_classes=source.num_classes,
        in_channels=source.in_channels,
        image_size=config.data.image_size,
        seed=derive_seed(config.split_seed, "initial weights"),
    )
    record_preparation_(network, config.data)
    return network


@functools.lru_cache(maxsize=2)
def _source(config: DataConfig, seed: int) -> Source:
    return open_source(config, seed=seed)


@functools.lru_cache(maxsize=2)
def _data(config: DataConfig, seed: int, preprocessing: Preprocessing, device: torch.device) -> Data:
    """Prepare the images, or take them from an earlier trial of this process that had the same."""
    return _source(config, seed).prepare(preprocessing, device)


def own_device(resources: ResourcesConfig) -> torch.device:
    """Choose the device of this process, and set the number of its threads, by the resources of the trial.

    Raises:
        UserError: a GPU is asked for, and this process sees none.
    """
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    if resources.gpus_per_worker > 0 and not torch.cuda.is_available():
        raise UserError(
            f"resources.gpus_per_worker={resources.gpus_per_worker:g}, but there is no GPU here; "
            "for the CPU: --set resources.gpus_per_worker=0"
        )
    return torch.device("cuda" if resources.gpus_per_worker > 0 else "cpu")


def _metadata(trial: Trial, task: Task, outcome: Row) -> ModelMetadata:
    classes = open_data(task.config).class_names
    provenance: dict[str, str | int | None] = {
        "study": trial.study,
        "trial_id": trial.trial_id,
        "seed": trial.config.seed,
        "commit": commit(),
    }
    metrics = {name: value for name, value in outcome.items() if isinstance(value, int | float)}
    return describe_network(task.network, class_names=classes, metrics=metrics, provenance={**provenance, **versions()})
