"""The driver of a search stopped and killed: the same command goes on, to the table of one that nobody disturbed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_sweep import pytestmark  # noqa: F401  (the same marks)
from test_trial import SPACE, result
from undisturbed import run_alone, table

from pwfn.results.store import ResultsStore

LAUNCHER = Path(__file__).parents[2] / "launchers" / "search.py"
WAIT = 400
"""Seconds for which a test waits for its moment, on a busy machine."""


SLOW = ("training.rest_epochs=60", "search.max_concurrent=1")
"""Trials of some seconds, so that there is time to disturb them."""


def search(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(LAUNCHER), "--space", str(SPACE), "--results", str(folder), "--study", "small"]
    return subprocess.Popen([*command, "--set", *SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(moment, process: subprocess.Popen[str]) -> None:
    """Wait for a moment of a search, which must not end before it."""
    deadline = time.monotonic() + WAIT
    while not moment():
        if process.poll() is not None:
            pytest.fail("".join(process.communicate()))
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)


def num_rounds(store: ResultsStore) -> int:
    return len(list(Path(store.results, "small", "rounds").glob("*"))) and len(store.read_all_rounds())


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return table(run_alone(tmp_path_factory.mktemp("undisturbed"), *SLOW))


@pytest.fixture
def store(tmp_path):
    return ResultsStore(str(tmp_path), "small")


def communicate(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=WAIT)
    assert process.returncode == code, output + errors
    return output, errors


def assert_gone(processes: list[psutil.Process], seconds: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert alive == []


def test_sigkill_of_the_driver_and_later_sigterm_to_all_processes(store, undisturbed, tmp_path):
    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) >= 2, process)
    all_of_them = family(process)
    assert {"raylet", "gcs_server"} <= {each.name() for each in all_of_them}
    process.kill()
    process.communicate()
    assert_gone(all_of_them, 10)
    assert store.read_trials() == []

    # It goes on. As systemd ends a cgroup: the signal goes to every process, Ray's daemons and trials too.
    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) >= 4, process)
    all_of_them = family(process)
    for each in [psutil.Process(process.pid), *all_of_them]:
        each.send_signal(signal.SIGTERM)
    output, errors = communicate(process)
    assert "SIGTERM: the running rounds are finished and written" in output
    assert "stopped: SIGTERM came; the same command goes on" in output
    assert errors == ""
    assert_gone(all_of_them, 5)
    (rows, rounds), (all_rows, all_rounds) = table(store), undisturbed
    assert 1 <= len(rows) < 3
    assert (rows, rounds) == (all_rows[: len(rows)], all_rounds[: len(rows)])
    interrupted = result(store.read_rounds(f"{len(rows):04d}"))
    assert interrupted == all_rounds[len(rows)][: len(interrupted)]


@pytest.mark.slow
def test_ctrl_c_once_finishes_rounds_and_twice_stops_at_once(store, undisturbed, tmp_path):
    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) >= 1, process)
    process.send_signal(signal.SIGINT)
    output, _ = communicate(process)
    assert "SIGINT: the running rounds are finished and written, then the sweep stops; once more stops now" in output
    assert "stopped: SIGINT came; the same command goes on" in output
    rows, rounds = store.read_trials(), store.read_all_rounds()
    assert len(rows) < 3

    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) > len(rounds), process)
    all_of_them = family(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = communicate(process, 130)
    assert errors == "stopped at once; the same command goes on from the last rounds\n"
    assert_gone(all_of_them, 5)

    communicate(search(tmp_path))
    assert store.read_trials()[: len(rows)] == rows
    assert table(store) == undisturbed


@pytest.mark.slow
def test_where_ray_does_not_start_in_time_it_is_started_again(store, undisturbed, tmp_path):
    def raylets() -> list[psutil.Process]:
        return [each for each in family(process) if each.name() == "raylet"]

    process = search(tmp_path)
    wait_for(raylets, process)
    first = raylets()
    first[0].suspend()
    output, errors = communicate(process)
    assert "timed out during startup" in errors
    assert errors.strip().endswith("; trying again"), errors
    assert_gone(first, 1)
    assert table(store) == undisturbed
