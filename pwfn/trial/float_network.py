"""The float network of a study: read from its folder, or made there once."""

from __future__ import annotations

import logging

import torch

from pwfn.baseline import Baseline, make_baseline
from pwfn.config import TrialConfig
from pwfn.data import Source
from pwfn.float_network import Tell, baseline_key, nobody_is_told
from pwfn.midway import Midway
from pwfn.models import check_has_weights, check_head_is_trained, describe_loading
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.space.declaration import CHECKPOINT_MINUTES
from pwfn.trial.names import check_beats_chance, check_names, check_same_names
from pwfn.trial.opening import open_data, open_midway, open_task
from pwfn.trial.parts import in_smaller_parts, largest_batch
from pwfn.trial.teacher import open_teacher

log = logging.getLogger(__name__)


def ensure_baseline(
    config: TrialConfig,
    store: ResultsStore,
    device: torch.device,
    replicas: Replicas,
    *,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    tell: Tell = nobody_is_told,
) -> Baseline:
    """Read the float network that this trial starts from; if there is none yet, make it and keep it.

    A sweep makes it before its first trial. Several trials may call this at once only when it is already made. One that
    was interrupted in its training goes on; one that runs out of memory goes on with smaller parts of each batch.

    `tell` is told how far the training is.
    """
    key, source = baseline_key(config), open_data(config)
    kept = store.read_baseline(key)
    if kept is not None:
        check_same_names(kept[1].get("classes"), source, f"the float network in {store.results}/{store.study}")
        return Baseline.from_bytes(*kept)
    check_has_weights(config)
    name = f"baseline-{key}"

    def note(micro_batches: int) -> None:
        store.write_micro_batches(name, micro_batches)
        log.warning("float network: out of memory, now %d parts per batch", micro_batches)

    def make(micro_batches: int) -> Baseline:
        midway = open_midway(name, store, replicas, checkpoint_minutes)
        return _make_baseline(config, source, device, replicas, micro_batches, midway, tell)

    most = largest_batch(config, config.baseline, replicas)
    baseline = in_smaller_parts(
        make, first=store.read_micro_batches(name), most_parts=most, note=note, replicas=replicas
    )
    if replicas.is_first:
        store.write_baseline(key, baseline.to_bytes(), {**baseline.card, "classes": list(source.class_names)})
        store.delete_checkpoint(name)
        store.delete_attempts(name)
    return baseline


def _make_baseline(
    config: TrialConfig,
    source: Source,
    device: torch.device,
    replicas: Replicas,
    micro_batches: int,
    midway: Midway,
    tell: Tell,
) -> Baseline:
    of_study = config.model_copy(update={"seed": config.split_seed})
    task = open_task(of_study, config.model, device, replicas, micro_batches, midway)
    check_names(config, source, task.network)
    check_head_is_trained(config, task.network)
    understood = describe_loading(task.network, include_norm=config.include_norm)
    for line in understood.lines():
        log.log(logging.WARNING if line.startswith("warning") else logging.INFO, line)
    teacher = open_teacher(config, source, task.network)
    baseline = make_baseline(task, teacher if teacher is None else teacher.to(device), tell)
    check_beats_chance(config, source, baseline.validation)
    return baseline
