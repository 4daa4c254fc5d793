"""One trial, in whatever process it was put: what it finishes is in the store before anybody is told."""

from __future__ import annotations

import dataclasses
import functools
import logging

import torch
from safetensors.torch import load, save
from torch import nn

from pwfn.baseline import Baseline, baseline_key, make_baseline
from pwfn.config import DataConfig, ModelConfig, ResourcesConfig, TrialConfig
from pwfn.data import Data, Preprocessing, Source, open_source
from pwfn.errors import NonFiniteLossError, TrialError, UserError
from pwfn.export import ModelMetadata, describe_network, encode_network
from pwfn.methods import METHODS, Method, RoundRecord, run_rounds
from pwfn.models import build_network, preprocessing_of, record_preparation_
from pwfn.replicas import Replicas
from pwfn.results.files import RefusedError
from pwfn.results.store import ResultsStore
from pwfn.seeds import derive_seed
from pwfn.task import Task
from pwfn.trial.attempts import Attempts
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
from pwfn.trial.verdict import RoundListener, Verdict

log = logging.getLogger(__name__)


def run_trial(
    trial: Trial, store: ResultsStore, *, device: torch.device, replicas: Replicas, on_round: RoundListener
) -> Row | None:
    """Run a trial to its end, from its last checkpoint if it has one, and return the row that is now in the store.

    None is a trial that was told to stop: it has no row and goes on from its last round when it is run again. A failure
    becomes a row as well. With several replicas only the failures that all of them meet together are caught here;
    any other has to end the process, so that the rest do not wait for it.

    Raises:
        RefusedError: the store cannot be used, for longer than its patience.
    """
    caught = Exception if replicas.world_size == 1 else NonFiniteLossError
    with Attempts(store, trial.trial_id, is_writer=replicas.is_first) as attempts:
        try:
            outcome = _run_in_memory(trial, store, device, replicas, on_round)
        except RefusedError:  # not the trial's failure: without a row it goes on once its results can be used again
            raise
        except caught as error:
            if not isinstance(error, UserError | TrialError):  # theirs says all; any other is a defect, with its trace
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
    """Run a trial; where memory runs out, go on from its last round with each batch in twice as many parts.

    The parts' gradients add up to the batch's, so it stays the same experiment. A replica that runs out of memory has
    to end, or the others would wait for it; it is started again, with the parts that it noted.
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
    task = open_task(trial.config, ModelConfig(name=trial.config.model.name), device, replicas, micro_batches)
    task.network.load_state_dict(dict(baseline.state))
    task = task.ready()
    checkpoint = store.read_checkpoint(trial.trial_id)
    method = METHODS[trial.config.method.name](task)
    for record in run_rounds(method, load(checkpoint) if checkpoint else None):
        verdict = Verdict.CONTINUE
        if replicas.is_first:
            row = {**round_row(trial, record), "float_val_top1": baseline.validation.top1}
            store.append_round(trial.trial_id, row)
            if not record.is_last:
                store.write_checkpoint(trial.trial_id, save(dict(record.state())))
            verdict = on_round(row, record.summary)
        log.info("trial %s %s", trial.trial_id, record.summary)
        verdict = Verdict(replicas.agree(verdict, device))
        if verdict is Verdict.STOP and not record.is_last:
            return None
        if verdict is Verdict.PRUNE and not record.is_last:
            return {"state": "pruned", **_measured(task, baseline, record)}
    return _outcome(trial, method, baseline, record, store)


def _measured(task: Task, baseline: Baseline, record: RoundRecord) -> Row:
    """Columns that every trial has which finished a round: of the fixed weights, on the validation images."""
    sets = task.parameter_sets
    return {
        **accuracy_columns("val", record.after),
        "val_top1_before": record.before.top1,
        "float_val_top1": baseline.validation.top1,
        "float_test_top1": baseline.test.top1,
        **dataclasses.asdict(record.metrics),
        "coverage": sets.coverage,
        "num_weights": sets.num_fixable,
        "recalibrated_bn": record.recalibrated_bn,
        "untreated_layers": record.fixing.untreated_layers,
        "rounds_done": record.round + 1,
        "micro_batches": task.micro_batches,
    }


def _outcome(trial: Trial, method: Method, baseline: Baseline, last: RoundRecord, store: ResultsStore) -> Row:
    """Measure the final network and write it; the validation accuracy is that of the last record."""
    task = method.task
    outcome = {
        "state": "complete",
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
    """Read the float network this trial starts from, or make and keep it.

    A sweep makes it before its first trial; only then may several trials call this at once.
    """
    key, source = baseline_key(config), open_data(config)
    kept = store.read_baseline(key)
    if kept is not None:
        check_same_names(kept[1].get("classes"), source, f"the float network in {store.results}/{store.study}")
        return Baseline.from_bytes(*kept)
    of_study = config.model_copy(update={"seed": config.split_seed})
    task = open_task(of_study, config.model, device, replicas)
    check_names(config, source, task.network)
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
    """Keep the decoded images for the next trial in this process."""
    return _source(config, seed).prepare(preprocessing, device)


def own_device(resources: ResourcesConfig) -> torch.device:
    """Choose this process's device and the number of its threads by what the trial occupies.

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
