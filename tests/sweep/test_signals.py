"""Ctrl-C and SIGTERM at any moment of real commands: one line, an exit code, finished work kept, nothing left over."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_driver import family, wait_for
from test_trial import SPACE

from pwfn.results.store import ResultsStore

ROOT = Path(__file__).parents[2]


def launch(name: str, folder: Path, *options: str, what: tuple[str, str] = ("--space", str(SPACE))):
    command = [sys.executable, str(ROOT / "launchers" / f"{name}.py"), *what]
    return subprocess.Popen(
        [*command, "--results", str(folder / "results"), "--study", "small", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("name", "library"), [("search", "_raylet"), ("train", "libtorch")])
def test_a_signal_during_the_imports_is_one_line(tmp_path, name, library, number):
    process = launch(name, tmp_path)
    wait_for(lambda: any(library in each.path for each in psutil.Process(process.pid).memory_maps()), process)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert output == ""
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith(f"{number.name}: stopped before ")
    assert list(tmp_path.iterdir()) == []


def test_what_is_imported_cannot_swallow_a_signal(tmp_path):
    (tmp_path / "swallowing.py").write_text("import os, signal\ntry: os.kill(os.getpid(), signal.SIGINT)\nexcept: pass")
    code = "from pwfn import stopping; stopping.listen()\nwith stopping.by_exception(): import swallowing"
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "SIGINT: stopped\n")


@pytest.mark.slow
def test_a_trial_by_hand_finishes_its_round_and_goes_on_by_its_number(tmp_path):
    """SIGTERM as `timeout` sends it: to the process, and then to its group."""
    store = ResultsStore(str(tmp_path / "results"), "small")
    undisturbed = launch("train", tmp_path, "--set", "training.rest_epochs=60")
    output, errors = undisturbed.communicate(timeout=200)
    assert undisturbed.returncode == 0, errors
    process = launch("train", tmp_path, "--set", "training.rest_epochs=60", "--seed", "1")  # the same: a new number
    wait_for(lambda: store.read_rounds("0001"), process)
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGTERM, errors
    said = errors.splitlines()
    assert said[-1] == "stopped; the same command goes on from the last round"
    assert sum("SIGTERM: the running round is finished and written" in line for line in said) == 1
    assert "Traceback" not in errors
    done = len(store.read_rounds("0001"))
    assert store.read_trial("0001") is None
    again = launch("train", tmp_path, what=("--trial", "1"))
    output, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert f"trial 0001 was begun before and goes on after its round {done}" in errors
    assert store.proposal_ids() == ["0000", "0001"]
    columns = ("val_top1", "test_top1", "unique_values", "entropy_bits", "seed")
    first, second = (store.read_trial(each) for each in ("0000", "0001"))
    assert [first[name] for name in columns] == [second[name] for name in columns]


def is_there(process: subprocess.Popen[str], name: str) -> bool:
    return any(each.name().startswith(name) for each in family(process))


@pytest.mark.slow
@pytest.mark.cluster
def test_a_trial_of_two_workers_finishes_its_round_and_the_same_command_goes_on(tmp_path):
    """Ctrl-C, for which Ray Train has a handler of its own."""
    store = ResultsStore(str(tmp_path / "results"), "small")
    fields = ("--set", "training.rest_epochs=60", "resources.workers=2", "resources.cpus_per_worker=0.5")
    process = launch("train", tmp_path, *fields)
    wait_for(lambda: store.read_rounds("0000"), process)
    all_of_them = family(process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + signal.SIGINT, errors
    said = errors.splitlines()
    assert said[-1] == "stopped; the same command goes on from the last round"
    assert sum("SIGINT: the running round is finished and written" in line for line in said) == 1
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(all_of_them, timeout=5)
    assert alive == []
    done = len(store.read_rounds("0000"))
    assert store.read_trial("0000") is None
    again = launch("train", tmp_path, *fields)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert f"trial 0000 was begun before and goes on after its round {done}" in errors
    assert store.read_trial("0000")["state"] == "complete"


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_starts_or_the_float_network_trains_is_one_line(tmp_path, number):
    for moment in ("raylet", "ray::"):
        process = launch("search", tmp_path, "--set", "baseline.epochs=2000")
        wait_for(functools.partial(is_there, process, moment), process)
        all_of_them = family(process)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 128 + number, errors
        assert errors == "stopped at once; the same command goes on from the last rounds\n"
        _, alive = psutil.wait_procs(all_of_them, timeout=5)
        assert alive == []
        time.sleep(1)
