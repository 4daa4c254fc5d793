"""Starts or joins Ray. Nothing here imports Ray at the top: its environment has to be set before the import."""

from __future__ import annotations

import logging
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pwfn import stopping
from pwfn.errors import UserError, first_line
from pwfn.sweep.address import check_address
from pwfn.sweep.own_session import own_session
from pwfn.sweep.ray_sessions import Watcher

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
START_ATTEMPTS = 3
"""How often Ray is started before that is given up; it gives itself 30 seconds, too few for a very busy machine."""

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables; the sweep shows its progress itself
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # Tune's CSV, JSON and TensorBoard copies; the rows are the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: trials finish their rounds
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
}
_TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a lost worker is noticed
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a space mean the same in every process
}
_LOOPBACK = {
    # Ray listens on every interface otherwise; `_node_ip_address` does not prevent it (Ray 2.60).
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "RAY_AUTH_MODE": "token",
}


def prepare_environment(*, local: bool) -> None:
    """Set the environment variables that Ray reads when it is imported; one that is already set stays as it is."""
    for name, value in {**_QUIET, **_TRAIN, **(_LOOPBACK if local else {})}.items():
        os.environ.setdefault(name, value)


def checkout() -> list[str]:
    """The root of the checkout that runs, where Ray's processes find a pwfn that is not installed; none for a wheel."""
    root = PACKAGE.parent
    return [str(root)] if (root / "pyproject.toml").is_file() else []


def check_folder(folder: Path) -> None:
    """Refuse to start Ray in a folder with another pwfn: Ray's processes would import that one, whatever runs here.

    Raises:
        UserError: names both.
    """
    other = folder / PACKAGE.name
    if (other / "__init__.py").is_file() and not other.samefile(PACKAGE):
        raise UserError(
            f"{folder} holds another pwfn than the one that runs, {PACKAGE}; start in another folder, or run the one "
            f"here: python {shlex.quote(str(folder / 'launchers' / 'search.py'))}"
        )


@contextmanager
def connected(address: str | None, *, dashboard: bool, temp_dir: str | None = None) -> Iterator[None]:
    """Join the cluster at an address, or start Ray on this machine, for this machine alone; at the end, leave it.

    Ray's processes on this machine hear no signal that is meant for this process, and end with it.

    Args:
        address: as in `ray.init`; None starts Ray here. A Ray that this process has joined already is used as it is.
        dashboard: start the dashboard with a local Ray. Ray Train needs its State API to release a lost trial's
            workers; trials with one worker do without.
        temp_dir: folder for the files of a local Ray; None takes Ray's own, /tmp/ray.

    Raises:
        UserError: Ray's processes would import another pwfn than this one; no cluster answers; Ray does not start.
    """
    prepare_environment(local=address is None)
    import ray

    if ray.is_initialized():
        yield
        return
    check_folder(Path.cwd())
    if address is not None:
        check_address(address)
    for attempts_left in reversed(range(START_ATTEMPTS)):
        watcher = Watcher()
        try:
            _join(address, dashboard, temp_dir, watcher)
            yield
            return
        except _LateError as error:
            if attempts_left == 0:
                raise UserError(f"{error}; the machine may be too busy") from error
            log.warning("%s; trying again", error)
        finally:
            with stopping.at_once("stopped at once; the same command goes on from the last rounds"):
                ray.shutdown()
                watcher.end()


class _LateError(Exception):
    """Ray did not start in the time that it gives itself."""


def _join(address: str | None, dashboard: bool, temp_dir: str | None, watcher: Watcher) -> None:
    import ray
    from ray.job_config import JobConfig

    # Ray's processes here inherit the environment; with another one, Ray could not use those that it starts in advance.
    environment = {"env_vars": {name: os.environ[name] for name in {**_QUIET, **_TRAIN}}}
    local = {"include_dashboard": dashboard, "_temp_dir": temp_dir}
    try:
        with own_session(watcher.watch):
            ray.init(
                address=address or "local",  # None would join whatever cluster runs on this machine
                log_to_driver=False,
                logging_level="ERROR",
                job_config=JobConfig(_py_driver_sys_path=checkout()),
                **(local if address is None else {"runtime_env": environment}),
            )
    except SystemExit as error:  # from the handler of SIGTERM that Ray has put in the place of ours
        raise stopping.Stopped(signal.SIGTERM) from error
    except Exception as error:  # of any class: where the machine is too busy to start it in time, a bare Exception
        place = f"at {address}" if address is not None else f"in {temp_dir or 'its own folder'}"
        words = f"Ray cannot be {'joined' if address is not None else 'started'} {place}: {first_line(error)}"
        raise (_LateError if "timed out during startup" in words else UserError)(words) from error
    stopping.listen_again()
