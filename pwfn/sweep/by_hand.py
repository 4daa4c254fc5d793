"""Runs one trial without a search: in this process, or on a cluster if it has several workers."""

from __future__ import annotations

import datetime as dt
import logging

from pwfn.baseline import baseline_key
from pwfn.config import TrialConfig
from pwfn.errors import MachineError, UserError
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.study import code_card, of_code, of_inputs, record_understood, show
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision
from pwfn.trial.fingerprint import fingerprint_inputs
from pwfn.trial.opening import CHECKPOINT_MINUTES, own_device
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial
from pwfn.trial.understood import format_understood, understand

log = logging.getLogger(__name__)


def config_of_space(space: SearchSpace) -> TrialConfig:
    """Configure the first known good setting of a space, or its defaults if it has none.

    Fields that the command line sets no longer vary.
    """
    settings = space.start_settings()
    params = settings[0] if settings else space.variation.complete({}, f"{space.name}: the default setting")
    return space.trial_config(params, 0)


def config_of_trial(store: ResultsStore, trial_id: str) -> TrialConfig:
    """Read the configuration of a recorded trial, its seed included.

    Raises:
        UserError: the study has no such trial.
    """
    return TrialConfig.model_validate_json(store.require_trial(trial_id)["config_json"])


def start_like(origin: ResultsStore, config: TrialConfig, store: ResultsStore) -> None:
    """Copy the float network of a study into another store, so that a recorded trial starts from the same one again."""
    key = baseline_key(config)
    kept = origin.read_baseline(key)
    if kept is not None and store.read_baseline(key) is None:
        store.write_baseline(key, *kept)


def warn_of_differences(origin: ResultsStore, config: TrialConfig) -> None:
    """Warn of code, packages, data or a checkpoint that differ from those that computed a recorded trial.

    The numbers of the trial may then differ too. The data of a trial with several workers are not compared, because
    this process may be on a machine that does not have them.
    """
    known = origin.read_study() or {}
    inputs = {baseline_key(config): fingerprint_inputs(config)} if config.resources.workers == 1 else {}
    differences = [*of_code(known), *of_inputs(known, inputs)]
    if differences:
        log.warning("warning: study %s was made otherwise (%s); numbers may differ", origin.study, show(differences))


def run_by_hand(
    config: TrialConfig, store: ResultsStore, *, address: str | None, command: str, origin: ResultsStore | None = None
) -> Row:
    """Run a trial under the next free number of a study; a study that does not exist is begun.

    Args:
        config: the configuration to run.
        store: where its results go.
        address: address of a Ray cluster, for a trial of several workers; None starts Ray on this machine.
        command: the command line that the user typed, for the record.
        origin: the study that recorded this trial before; its float network is copied.

    Raises:
        UserError: the results cannot be written, or the cluster cannot hold the trial.
    """
    if store.read_study() is None:
        store.create()
        store.write_study(
            {
                "study": store.study,
                **code_card(),
                "created_at": dt.datetime.now(dt.UTC).isoformat(),
                "command": command,
            }
        )
    if origin is not None:
        warn_of_differences(origin, config)
        start_like(origin, config, store)
    number = len(store.read_proposals())
    trial = Trial(f"{number:04d}", number, store.study, config)
    store.write_proposal(trial.trial_id, {"trial_id": trial.trial_id, "number": number, "config": config.model_dump()})
    if config.resources.workers == 1:
        device = own_device(config.resources)
        _say_what_was_understood(config, store)
        try:
            row = run_trial(trial, store, device=device, replicas=Replicas(), on_round=_nobody_else_is_told)
        except MachineError as error:
            raise UserError(
                f"the machine failed, not the trial ({error.failure_class}: {error}); run it again"
            ) from error
    else:
        row = _run_on_cluster(trial, store, address)
    assert row is not None, "nobody tells it to stop"
    return row


def _say_what_was_understood(config: TrialConfig, store: ResultsStore) -> None:
    """Log it and keep it; what cannot be understood fails the trial where it is opened again."""
    try:
        found = understand(config)
    except UserError:
        return
    log.info("%s", format_understood(found))
    record_understood(store, {baseline_key(config): found})


def _run_on_cluster(trial: Trial, store: ResultsStore, address: str | None) -> Row | None:
    from pwfn.sweep.cluster import connected

    with connected(address, dashboard=True):
        from pwfn.sweep.distributed import run_distributed
        from pwfn.sweep.placement import check_resources
        from pwfn.sweep.sweep import make_baselines

        check_resources(trial.config.resources)
        make_baselines([trial.config], store, checkpoint_minutes=CHECKPOINT_MINUTES)
        row = run_distributed(trial, store, _nobody_else_is_told, checkpoint_minutes=CHECKPOINT_MINUTES)
    store.delete_scratch()
    return row


def _nobody_else_is_told(row: Row, summary: str) -> Decision:
    """Let the trial go on: when it runs by hand, only its row on disk and its log line report a round."""
    return Decision.CONTINUE
