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
from test_driver import num_rounds, wait_for
from test_sweep import pytestmark as ray_marks
from test_trial import SPACE

from pwfn.results.store import ResultsStore

ROOT = Path(__file__).parents[2]


def launch(name: str, folder: Path, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, str(ROOT / "launchers" / f"{name}.py"), "--space", str(SPACE)]
    return subprocess.Popen(
        [*command, "--results", str(folder / "results"), "--study", "small", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["search", "train"])
def test_a_signal_during_the_imports_is_one_line(tmp_path, name, number):
    process = launch(name, tmp_path)
    wait_for(lambda: any("torch" in each.path for each in psutil.Process(process.pid).memory_maps()))
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert output == ""
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith(f"{number.name}: stopped before ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_trial_by_hand_finishes_its_round_and_the_same_command_goes_on(tmp_path):
    """SIGTERM as `timeout` sends it: to the process, and then to its group."""
    store = ResultsStore(str(tmp_path / "results"), "small")
    undisturbed = launch("train", tmp_path, "--set", "training.rest_epochs=60")
    output, errors = undisturbed.communicate(timeout=200)
    assert undisturbed.returncode == 0, errors
    process = launch("train", tmp_path, "--set", "training.rest_epochs=60", "--seed", "1")  # the same: a new number
    wait_for(lambda: store.read_rounds("0001"))
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
    again = launch("train", tmp_path, "--set", "training.rest_epochs=60")
    output, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert f"trial 0001 was begun before and goes on after its round {done}" in errors
    assert store.proposal_ids() == ["0000", "0001"]
    columns = ("val_top1", "test_top1", "unique_values", "entropy_bits", "seed")
    first, second = (store.read_trial(each) for each in ("0000", "0001"))
    assert [first[name] for name in columns] == [second[name] for name in columns]


def is_there(process: subprocess.Popen[str], name: str) -> bool:
    return any(each.name().startswith(name) for each in family(process))


class TestOfSearches:
    pytestmark = ray_marks

    def test_sigterm_to_all_processes_finishes_the_rounds_and_nothing_is_left(self, tmp_path):
        """As systemd ends a cgroup: the signal goes to every process, Ray's daemons and trials too."""
        store = ResultsStore(str(tmp_path / "results"), "small")
        process = launch("search", tmp_path, "--set", "training.rest_epochs=60", "search.max_concurrent=1")
        wait_for(lambda: num_rounds(store) >= 1)
        all_of_them = family(process)
        for each in [psutil.Process(process.pid), *all_of_them]:
            each.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert "SIGTERM: the running rounds are finished and written" in output
        assert "stopped: SIGTERM came; the same command goes on" in output
        assert errors == ""
        assert num_rounds(store) >= 2
        assert all(row["state"] == "complete" for row in store.read_trials())
        _, alive = psutil.wait_procs(all_of_them, timeout=1)
        assert alive == []

    def test_nothing_outlives_a_driver_that_was_killed(self, tmp_path):
        store = ResultsStore(str(tmp_path / "results"), "small")
        process = launch("search", tmp_path, "--set", "training.rest_epochs=60")
        wait_for(lambda: num_rounds(store) >= 1)
        all_of_them = family(process)
        assert {"raylet", "gcs_server"} <= {each.name() for each in all_of_them}
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(all_of_them, timeout=10)
        assert alive == []

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_while_ray_starts_or_the_float_network_trains_is_one_line(self, tmp_path, number):
        for moment in ("raylet", "ray::"):
            process = launch("search", tmp_path, "--set", "baseline.epochs=2000")
            wait_for(functools.partial(is_there, process, moment))
            all_of_them = family(process)
            os.killpg(process.pid, number)
            output, errors = process.communicate(timeout=200)
            assert process.returncode == 128 + number, errors
            assert errors == "stopped at once; the same command goes on from the last rounds\n"
            _, alive = psutil.wait_procs(all_of_them, timeout=1)
            assert alive == []
            time.sleep(1)
