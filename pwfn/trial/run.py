"""One trial, in whatever process it runs. What it finishes is in the store before anybody is told of it."""

from __future__ import annotations

import dataclasses
import logging

import torch
from safetensors.torch import save

from pwfn.baseline import Baseline
from pwfn.clock import now
from pwfn.errors import MachineError, NonFiniteLossError, TrialError, UserError
from pwfn.export import ModelMetadata, describe_network, encode_network
from pwfn.methods import METHODS, Method, RoundRecord, run_rounds
from pwfn.naming import PointName
from pwfn.parameters import shares_left_out
from pwfn.replicas import Replicas
from pwfn.results.files import RefusedError
from pwfn.results.store import ResultsStore
from pwfn.space.declaration import CHECKPOINT_MINUTES
from pwfn.task import Task
from pwfn.trial.attempts import Attempts
from pwfn.trial.decision import Decision, RoundListener
from pwfn.trial.failures import as_machine_error, building, failure
from pwfn.trial.float_network import ensure_baseline
from pwfn.trial.opening import open_data, open_midway, open_task
from pwfn.trial.parts import in_smaller_parts, largest_batch
from pwfn.trial.rows import Row, Trial, accuracy_columns, commit, round_row, trial_row, versions

log = logging.getLogger(__name__)

MOST_SHOWN = 5
"""Most tensors that one message names."""


def run_trial(
    trial: Trial,
    store: ResultsStore,
    *,
    device: torch.device,
    replicas: Replicas,
    on_round: RoundListener,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
) -> Row | None:
    """Run a trial to its end, from its last checkpoint if it has one, and return the row that is now in the store.

    Returns None for a trial that was told to stop: it has no row, and when it is run again it goes on from its last
    round. A failure becomes a row too, unless the machine is at fault. With several replicas, only failures that all of
    them meet at the same time are caught here; any other failure must end the process, because the other replicas would
    wait for it for ever.

    Raises:
        RefusedError: the store could not be used for longer than its patience.
        MachineError: the machine failed. This process must end; the trial goes on in another, from its last checkpoint.
    """
    caught = Exception if replicas.world_size == 1 else NonFiniteLossError
    with Attempts(store, trial.trial_id, is_writer=replicas.is_first) as attempts:
        try:
            outcome = _run_in_memory(trial, store, device, replicas, on_round, checkpoint_minutes, attempts)
        except RefusedError:  # not the trial's fault: it gets no row, and goes on when the store can be used again
            raise
        except caught as error:
            if (machine := as_machine_error(error)) is not None:
                raise machine from error
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
    trial: Trial,
    store: ResultsStore,
    device: torch.device,
    replicas: Replicas,
    on_round: RoundListener,
    checkpoint_minutes: float,
    attempts: Attempts,
) -> Row | None:
    """Run a trial; if memory runs out, go on from its last checkpoint with smaller parts of each batch.

    One of several replicas that runs out of memory must end, because the others would wait for it; when all are started
    again, they read the number of parts that it noted.
    """

    def note(micro_batches: int) -> None:
        store.write_micro_batches(trial.trial_id, micro_batches)
        log.warning("trial %s is out of memory: now %d parts per batch", trial.trial_id, micro_batches)

    return in_smaller_parts(
        lambda micro_batches: _run(
            trial, store, device, replicas, on_round, micro_batches, checkpoint_minutes, attempts
        ),
        first=store.read_micro_batches(trial.trial_id),
        most_parts=largest_batch(trial.config, trial.config.training, replicas),
        note=note,
        replicas=replicas,
    )


def _run(
    trial: Trial,
    store: ResultsStore,
    device: torch.device,
    replicas: Replicas,
    on_round: RoundListener,
    micro_batches: int,
    checkpoint_minutes: float,
    attempts: Attempts,
) -> Row | None:
    config = trial.config
    baseline = ensure_baseline(config, store, device, replicas, checkpoint_minutes=checkpoint_minutes)
    midway = open_midway(trial.trial_id, store, replicas, checkpoint_minutes, attempts.note_checkpoint)
    task = open_task(config, config.model.without_weights, device, replicas, micro_batches, midway)
    task.network.load_state_dict(dict(baseline.state))
    if config.training.channels_last:
        task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = task.ready()
    with building():
        method = METHODS[config.method.name](task)
    for record in run_rounds(method, midway.after_round or None):
        decision = Decision.CONTINUE
        _check_agreement(method, record)
        if record.is_whole and not record.is_last:
            _leave_point(trial, method, baseline, record, store)
        if replicas.is_first:
            row = {**round_row(trial, record), "float_val_top1": baseline.validation.top1}
            store.append_round(trial.trial_id, row)
            if not record.is_last:
                midway.begin_round(record.state())
                store.write_checkpoint(trial.trial_id, save(midway.after_round))
            decision = on_round(row, record.summary)
        else:
            midway.begin_round({})
        log.info("trial %s %s", trial.trial_id, record.summary)
        decision = Decision(replicas.agree(decision, device))
        if decision is Decision.STOP and not record.is_last:
            return None
        if decision is Decision.PRUNE and not record.is_last:
            return {"state": "pruned", **_measured(task, baseline, record)}
    return _outcome(trial, method, baseline, record, store)


def _check_agreement(method: Method, record: RoundRecord) -> None:
    """Compare what the replicas hold after a round, bit by bit.

    Raises:
        MachineError: they have come apart: one computed something else, and their mean would be nobody's result.
    """
    task = method.task
    if task.replicas.world_size == 1:
        return
    codebook = record.fixing.codebook
    held = {
        "codebook": torch.from_numpy(codebook.values),
        "counts": torch.from_numpy(codebook.counts),
        **{f"network's {name}": tensor for name, tensor in task.network.state_dict().items()},
        **{f"method's {name}": tensor for name, tensor in record.state().items()},
    }
    differing = task.replicas.differing(held, task.device)
    if differing:
        shown = ", ".join(differing[:MOST_SHOWN])
        raise MachineError(f"the workers no longer agree after round {record.round + 1} on: {shown}", "replicas")


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


def _metadata(trial: Trial, task: Task, outcome: Row) -> ModelMetadata:
    classes = open_data(task.config).class_names
    provenance: dict[str, str | int | None] = {
        "study": trial.study,
        "trial_id": trial.trial_id,
        "seed": trial.config.seed,
        "augmentation": trial.config.data.augmentation,
        "commit": commit(),
    }
    metrics = {name: value for name, value in outcome.items() if isinstance(value, int | float)}
    return describe_network(task.network, class_names=classes, metrics=metrics, provenance={**provenance, **versions()})
