"""Disturbs sweeps that run in this process: finds their processes on this machine, and kills them at a moment."""

import os
import signal
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from pwfn.results.store import ResultsStore

WAIT = 150
"""Seconds for which a disturbance waits for its moment, on a busy machine."""


def when(moment: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Act once, from a thread, as soon as the moment has come."""

    def wait() -> None:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if moment():
                act()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def first_round_of(store: ResultsStore, trial_id: str) -> Callable[[], bool]:
    return lambda: bool(store.read_rounds(trial_id))


def processes(name: str) -> list[psutil.Process]:
    """This cluster's processes whose title has a name, e.g. that of an actor's class."""
    mine = psutil.Process().children(recursive=True)
    return [each for each in mine if name in each.name()]  # a zombie has a name, but no command line


def kill(name: str) -> None:
    os.kill(processes(name)[0].pid, signal.SIGKILL)


def assert_nothing_is_left_over() -> None:
    """No worker group keeps its place, no controller its process, and every CPU is free again."""
    import ray
    from ray.util import placement_group_table

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        groups = [each for each in placement_group_table().values() if each["state"] != "REMOVED"]
        if (
            not groups
            and not processes("TrainController")
            and ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]
        ):
            return
        time.sleep(0.2)
    pytest.fail(f"left over: {groups}, {ray.available_resources()}")
