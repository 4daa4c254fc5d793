"""Runs one trial without a search: in this process, or on a cluster if it has several workers."""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import signal
from collections.abc import Callable

from rich.console import Console

from pwfn.config import TrialConfig
from pwfn.errors import MachineError, UserError
from pwfn.float_network import baseline_key
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.study import code_card, of_code, of_inputs, record_understood, show
from pwfn.space.declaration import CHECKPOINT_MINUTES
from pwfn.space.space import SearchSpace
from pwfn.stopping import Stopped, by_request, in_thread
from pwfn.sweep.hand_numbers import take_up
from pwfn.sweep.ownership import read_drivers
from pwfn.trial.decision import Decision
from pwfn.trial.fingerprint import fingerprint_inputs
from pwfn.trial.opening import own_device
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial
from pwfn.trial.understood import understand
from pwfn.trial.understood_lines import Understood, format_understood

log = logging.getLogger(__name__)


def config_of_space(space: SearchSpace) -> TrialConfig:
    """Configure the first known good setting of a space, or its defaults if it has none.

    Fields that the command line sets no longer vary.
    """
    settings = space.start_settings()
    params = settings[0] if settings else space.variation.complete({}, f"{space.name}: the default setting")
    return space.trial_config(params, 0)


def config_of_begun(store: ResultsStore, trial_id: str) -> TrialConfig | None:
    """Read the configuration of a trial by hand that was begun and has no row; None if there is no such trial."""
    proposal = store.read_proposal(trial_id)
    if proposal is None or "config" not in proposal or store.read_trial(trial_id) is not None:
        return None
    return TrialConfig.model_validate_json(json.dumps(proposal["config"]))


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
    config: TrialConfig,
    store: ResultsStore,
    *,
    address: str | None,
    command: str,
    origin: ResultsStore | None = None,
) -> Row:
    """Run a trial under the next free number of a study; a study that does not exist is begun.

    A trial of the same configuration that was begun by hand and never ended, by a process that is gone, goes on from
    its last round. Everything is checked before anything is written.

    Args:
        config: the configuration to run.
        store: where its results go.
        address: address of a Ray cluster, for a trial of several workers; None starts Ray on this machine.
        command: the command line that the user typed, for the record.
        origin: the study that recorded this trial before; its float network is copied.

    Raises:
        UserError: the study is that of a search; model or data cannot be used; the results cannot be written; or the
            cluster cannot hold the trial.
        KeyboardInterrupt: a signal came; after the running round, or at once where a second signal came.
    """
    require_by_hand(store)
    if config.resources.workers > 1:
        return _run_on_cluster(config, store, address, command, origin)
    if address is not None:
        raise UserError(
            f"--address {address}: a trial with one worker runs in this process; leave --address out, or set "
            "resources.workers=2 or more"
        )
    device = own_device(config.resources)
    understood = understand(config)
    log.info("%s", format_understood(understood))
    trial = _begin(config, store, command, origin, understood)
    came = Came()
    with by_request(came.note, lambda: came.number != 0):
        try:
            row = run_trial(trial, store, device=device, replicas=Replicas(), on_round=came.answer)
        except MachineError as error:
            raise UserError(
                f"the machine failed, not the trial ({error.failure_class}: {error}); run it again"
            ) from error
    if row is None:
        raise Stopped(came.number)
    return row


def require_by_hand(store: ResultsStore) -> None:
    """Raise UserError if a search runs in the study, whose numbers are its own."""
    if "space" in (store.read_study() or {}) or any(each.lives for each in read_drivers(store)):
        raise UserError(
            f"{store.results}/{store.study} is the study of a search; trials by hand have their own numbers: "
            f"leave out --study, or take another name, such as --study {store.study}-by-hand"
        )


def _begin(
    config: TrialConfig, store: ResultsStore, command: str, origin: ResultsStore | None, understood: Understood
) -> Trial:
    """Write down that a trial by hand begins, under a number that no other run has, or take up one that was begun."""
    store.create()
    created_at = dt.datetime.now(dt.UTC).isoformat()
    card = {"study": store.study, **code_card(), "created_at": created_at, "command": command}
    store.begin_study(card)
    require_by_hand(store)  # a search may have begun the study in this moment
    if origin is not None:
        warn_of_differences(origin, config)
        start_like(origin, config, store)
    number = take_up(config, store)
    trial = Trial(f"{number:04d}", number, store.study, config)
    record_understood(store, {baseline_key(config): understood})
    if rounds := len(store.read_rounds(trial.trial_id)):
        log.info("trial %s was begun before and goes on after its round %d", trial.trial_id, rounds)
    return trial


def _run_on_cluster(
    config: TrialConfig, store: ResultsStore, address: str | None, command: str, origin: ResultsStore | None
) -> Row:
    from pwfn.sweep.cluster import connected

    with connected(address, dashboard=True):
        import ray

        from pwfn.sweep.desk import DeskListener, open_desk
        from pwfn.sweep.distributed import run_distributed
        from pwfn.sweep.float_networks import make_baselines, understand_all
        from pwfn.sweep.placement import check_resources

        check_resources(config.resources)
        ((understood, _),) = understand_all([config]).values()
        log.info("%s", format_understood(understood))
        trial = _begin(config, store, command, origin, understood)
        console = Console(stderr=True)
        make_baselines([config], store, checkpoint_minutes=CHECKPOINT_MINUTES, console=console)
        with open_desk(store) as desk:
            run = functools.partial(run_distributed, trial, store, DeskListener(desk), desk=desk)
            row = _until_asked(
                functools.partial(run, checkpoint_minutes=CHECKPOINT_MINUTES), stop=lambda: ray.get(desk.close.remote())
            )
    store.delete_scratch()
    return row


def _until_asked(run: Callable[[], Row | None], stop: Callable[[], None]) -> Row:
    """Run a trial, and call `stop` once a signal comes.

    Raises:
        KeyboardInterrupt: the trial has stopped, or a second signal came.
    """
    came = Came()
    is_told = False

    def look() -> None:
        nonlocal is_told
        if came.number and not is_told:
            stop()
            is_told = True

    with by_request(came.note, lambda: came.number != 0):
        row = in_thread(run, look)
    if row is None:
        raise Stopped(came.number)
    return row


class Came:
    """Which signal has asked a trial by hand to stop, if any."""

    def __init__(self) -> None:
        self.number = 0

    def note(self, number: int) -> None:
        """A signal asks the trial to stop after the running round."""
        self.number = number
        log.warning("%s: the running round is finished and written; once more stops now", signal.Signals(number).name)

    def answer(self, row: Row, summary: str) -> Decision:
        """Let the trial go on after a round, unless a signal came."""
        return Decision.STOP if self.number else Decision.CONTINUE
