"""One trial, in whatever process it was put: what it finishes is in the store before anybody is told."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import logging
import time
from collections.abc import Callable

import torch
from safetensors.torch import load, save

from pwfn.baseline import Baseline, baseline_key, make_baseline
from pwfn.config import DataConfig, ModelConfig, ResourcesConfig, TrialConfig
from pwfn.data import Data, Preprocessing, Source, open_source
from pwfn.errors import NonFiniteLossError, TrialError, UserError
from pwfn.export import ModelMetadata, describe_network, encode_network
from pwfn.methods import METHODS, Method, RoundRecord, run_rounds
from pwfn.models import build_network, preprocessing_of
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.rows import Row, Trial, accuracy_columns, commit, failure, round_row, trial_row, versions
from pwfn.seeds import derive_seed
from pwfn.task import Task

log = logging.getLogger(__name__)

RoundListener = Callable[[Trial, RoundRecord], None]


def run_trial(
    trial: Trial, store: ResultsStore, *, device: torch.device, replicas: Replicas, on_round: RoundListener
) -> Row:
    """Run a trial to its end, from its last checkpoint if it has one, and return the row that is now in the store.

    A failure becomes a row as well. With several replicas only the failures that all of them meet together are
    caught here; any other has to end the process, so that the rest do not wait for it.
    """
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    caught = Exception if replicas.world_size == 1 else NonFiniteLossError
    try:
        outcome = _run(trial, store, device, replicas, on_round)
    except caught as error:
        if not isinstance(error, UserError | TrialError):  # theirs says all; any other is a defect, with its trace
            log.exception("trial %s failed", trial.trial_id)
        outcome = failure(error)
    row = trial_row(trial, outcome, started, time.perf_counter() - clock)
    if replicas.is_first:
        store.write_trial(row)
        store.delete_checkpoint(trial.trial_id)
    return row


def _run(trial: Trial, store: ResultsStore, device: torch.device, replicas: Replicas, on_round: RoundListener) -> Row:
    baseline = ensure_baseline(trial.config, store, device, replicas)
    task = open_task(trial.config, ModelConfig(name=trial.config.model.name), device, replicas)
    task.network.load_state_dict(dict(baseline.state))
    checkpoint = store.read_checkpoint(trial.trial_id)
    method = METHODS[trial.config.method.name](task)
    for record in run_rounds(method, load(checkpoint) if checkpoint else None):
        if replicas.is_first:
            store.append_round(trial.trial_id, round_row(trial, record))
            if not record.is_last:
                store.write_checkpoint(trial.trial_id, save(dict(record.state())))
            on_round(trial, record)
        log.info("trial %s %s", trial.trial_id, record.summary)
    return _outcome(trial, method, baseline, record, store)


def _outcome(trial: Trial, method: Method, baseline: Baseline, last: RoundRecord, store: ResultsStore) -> Row:
    """Measure the final network and write it; the validation accuracy is that of the last record."""
    task = method.task
    sets = task.parameter_sets
    outcome = {
        "state": "complete",
        **accuracy_columns("val", last.after),
        "val_top1_before": last.before.top1,
        **accuracy_columns("test", task.measure("test")),
        **accuracy_columns("test", last.test_before, "_before"),
        "ensemble_test_top1": last.ensemble_test_top1,
        "float_val_top1": baseline.validation.top1,
        "float_test_top1": baseline.test.top1,
        **dataclasses.asdict(last.metrics),
        "coverage": sets.coverage,
        "num_weights": sets.num_fixable,
        "recalibrated_bn": last.recalibrated_bn,
        "untreated_layers": last.fixing.untreated_layers,
        "rounds_done": last.num_rounds,
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
    key = baseline_key(config)
    kept = store.read_baseline(key)
    if kept is not None:
        return Baseline.from_bytes(*kept)
    of_study = config.model_copy(update={"seed": split_seed(config)})
    baseline = make_baseline(open_task(of_study, config.model, device, replicas))
    if replicas.is_first:
        store.write_baseline(key, baseline.to_bytes(), baseline.card)
    return baseline


def open_task(config: TrialConfig, model: ModelConfig, device: torch.device, replicas: Replicas) -> Task:
    """Build a network and the data it is given, on a device."""
    seed = split_seed(config)
    source = _source(config.data, seed)
    network = build_network(
        model,
        num_classes=source.num_classes,
        in_channels=source.in_channels,
        image_size=config.data.image_size,
        seed=derive_seed(seed, "initial weights"),
    )
    data = _data(config.data, seed, preprocessing_of(network), device)
    return Task(network.to(device), data, config, device, replicas)


def split_seed(config: TrialConfig) -> int:
    """Return the seed of the split and of weights that are not loaded: the study's, or a lone trial's own."""
    return config.seed if config.data.split_seed is None else config.data.split_seed


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
    classes = _source(task.config.data, split_seed(task.config)).class_names
    provenance: dict[str, str | int | None] = {
        "study": trial.study,
        "trial_id": trial.trial_id,
        "seed": trial.config.seed,
        "commit": commit(),
    }
    metrics = {name: value for name, value in outcome.items() if isinstance(value, int | float)}
    return describe_network(task.network, class_names=classes, metrics=metrics, provenance={**provenance, **versions()})
