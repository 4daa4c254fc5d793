"""What is done once for each float network of a study, as tasks of Ray's: its data are looked at, then it is made.

What only the tasks need is imported in them: the driver does without torch, whose import takes seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from pwfn.config import TrialConfig
from pwfn.errors import MachineError, TrialError, UserError
from pwfn.float_network import Tell, baseline_key
from pwfn.results.store import ResultsStore
from pwfn.sweep.float_progress import watched
from pwfn.sweep.lost import RESTARTS
from pwfn.sweep.placement import task_options
from pwfn.trial.failures import as_machine_error
from pwfn.trial.understood_lines import Understood

if TYPE_CHECKING:
    from pwfn.trial.fingerprint import Fingerprint

Result = TypeVar("Result")


def understand_all(configs: Iterable[TrialConfig]) -> dict[str, tuple[Understood, Fingerprint]]:
    """Open data and network of each float network where a trial would run; return what was understood of them.

    Raises:
        UserError: the model or the data cannot be used.
    """
    return _for_each_float_network(_understand, configs)


def _understand(config: TrialConfig) -> tuple[Understood, Fingerprint]:
    from pwfn.trial.fingerprint import fingerprint_inputs
    from pwfn.trial.opening import own_device
    from pwfn.trial.understood import understand

    own_device(config.resources)  # raises where there is no GPU, before anything is written
    return understand(config), fingerprint_inputs(config)


def make_baselines(
    configs: Iterable[TrialConfig], store: ResultsStore, *, checkpoint_minutes: float, console: Console
) -> None:
    """Make each float network that trials start from, in a place where a trial would run; show how far they are.

    One that is trained is trained by all workers of a trial together.

    Raises:
        UserError: the model or the data cannot be used, or the training diverges.
    """
    distinct = {baseline_key(config): config for config in configs}
    several = [each for each in distinct.values() if each.resources.workers > 1 and each.baseline.epochs > 0]
    alone = [each for each in distinct.values() if each not in several]
    with watched(console) as tell:
        make = functools.partial(_make_baseline, store=store, checkpoint_minutes=checkpoint_minutes, tell=tell)
        _for_each_float_network(make, alone)
        if several:
            from pwfn.sweep.distributed import train_float_network
        for config in several:
            train_float_network(config, store, tell, checkpoint_minutes=checkpoint_minutes)


def _make_baseline(config: TrialConfig, store: ResultsStore, checkpoint_minutes: float, tell: Tell) -> None:
    from pwfn.replicas import Replicas
    from pwfn.trial.float_network import ensure_baseline
    from pwfn.trial.opening import own_device

    device = own_device(config.resources)
    ensure_baseline(config, store, device, Replicas(), checkpoint_minutes=checkpoint_minutes, tell=tell)


def _for_each_float_network(
    function: Callable[[TrialConfig], Result], configs: Iterable[TrialConfig]
) -> dict[str, Result]:
    """Call a function for one configuration of each float network, as a task of Ray's; return what it gave, by key."""
    distinct = {baseline_key(config): config for config in configs}
    # Ray ends the process of a task that had a GPU; another one is used again, and need not import anything.
    with_options = {"max_retries": RESTARTS, "retry_exceptions": [MachineError]}
    pending = [
        ray.remote(**task_options(config.resources), **with_options)(_result_or_message).remote(function, config)
        for config in distinct.values()
    ]
    try:
        found = ray.get(pending)
    except RayTaskError as error:
        if (machine := as_machine_error(error.cause)) is None:
            raise
        raise UserError(f"the machine failed {RESTARTS + 1} times ({machine.failure_class}: {machine})") from error
    results = {}
    for key, (result, message) in zip(distinct, found, strict=True):
        if message is not None:
            raise UserError(message)
        results[key] = result
    return results


def _result_or_message(
    function: Callable[[TrialConfig], Result], config: TrialConfig
) -> tuple[Result | None, str | None]:
    """Return what a function gives, or the message of its error: Ray would add a traceback to an exception.

    Raises:
        MachineError: the machine failed; the function is called again, in another process.
    """
    try:
        return function(config), None
    except Exception as error:
        if (machine := as_machine_error(error)) is not None:
            raise machine from error
        if isinstance(error, UserError | TrialError):
            return None, str(error)
        raise
