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

from pwfn.results.store import ResultsStore

LAUNCHER = Path(__file__).parents[2] / "launchers" / "search.py"
WAIT = 200
"""Seconds for which a test waits for its moment, on a busy machine."""


def search(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(LAUNCHER), "--space", str(SPACE), "--results", str(folder), "--study", "small"]
    options = ["--set", "training.rest_epochs=60", "search.max_concurrent=2"]
    return subprocess.Popen(command + options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(moment) -> None:
    deadline = time.monotonic() + WAIT
    while not moment():
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)


def num_rounds(store: ResultsStore) -> int:
    return len(list(Path(store.results, "small", "rounds").glob("*"))) and len(store.read_all_rounds())


def trial_processes(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """What trains for a driver; Ray's own agents may live a minute longer than theirs."""
    family = psutil.Process(driver.pid).children(recursive=True)
    return [each for each in family if "ImplicitFunc" in each.name()]  # a zombie has a name, but no command line


def table(store: ResultsStore):
    rows = store.read_trials()
    return result(rows), [result(store.read_rounds(row["trial_id"])) for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = search(folder)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output
    return table(ResultsStore(str(folder), "small"))


@pytest.fixture
def store(tmp_path):
    return ResultsStore(str(tmp_path), "small")


def finish(store: ResultsStore) -> None:
    process = search(Path(store.results))
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output


def test_sigkill_of_the_driver(store, undisturbed, tmp_path):
    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) >= 2)
    trials = trial_processes(process)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(trials, timeout=WAIT)
    assert trials
    assert alive == []
    assert len(store.read_trials()) < 3
    finish(store)
    assert table(store) == undisturbed


@pytest.mark.slow
def test_ctrl_c_once_finishes_rounds_and_twice_stops_at_once(store, undisturbed, tmp_path):
    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) >= 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, output
    assert "SIGINT: the running rounds are finished and written, then the sweep stops; once more stops now" in output
    assert "stopped: SIGINT came; the same command goes on" in output
    rows, rounds = store.read_trials(), store.read_all_rounds()
    assert len(rows) < 3

    process = search(tmp_path)
    wait_for(lambda: num_rounds(store) > len(rounds))
    trials = trial_processes(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 130, output
    assert "stopped at once; the same command goes on from the last rounds" in output
    _, alive = psutil.wait_procs(trials, timeout=WAIT)
    assert alive == []

    finish(store)
    assert store.read_trials()[: len(rows)] == rows
    assert table(store) == undisturbed
