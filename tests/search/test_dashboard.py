"""The live view: a study's folder as Optuna sees it, and really served over HTTP."""

import datetime as dt
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from optuna.trial import TrialState

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.dashboard import Mirror
from pwfn.space.declaration import Origin
from pwfn.space.space import SearchSpace

ROOT = Path(__file__).parents[2]
START = dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)
DECLARED = {
    "fixed": {"data": {"name": "digits"}},
    "vary": {
        "method.b": {"int": [3, 8]},
        "training.lr": {"log_float": [1e-4, 1e-1]},
        "method.fractions": {"choice": [[0.5, 1.0], [0.2, 0.6, 1.0]]},
    },
    "constraints": {"unique_values": {"max": 10}},
}


@pytest.fixture
def store(tmp_path):
    """A study of four trials, one for each state, the last one running."""
    store = ResultsStore(str(tmp_path), "digits")
    store.create()
    space = SearchSpace.read("digits", DECLARED, Origin("digits.yaml"))
    store.write_study({"space": space.resolved(), "study": "digits"})
    for number in range(4):
        propose(store, number)
    end(store, 0, "complete", val_top1=0.98, unique_values=20)
    end(store, 1, "pruned", val_top1=0.5, unique_values=3)
    end(store, 2, "failed", failure_class="nan", failure_message="the loss is NaN")
    store.append_round("0003", {"round": 0, "num_rounds": 10})
    return store


def propose(store, number, **params):
    trial_id = f"{number:04d}"
    params = {"method.b": 3 + number, "method.fractions": [0.5, 1.0], "training.lr": 0.01, **params}
    store.write_proposal(trial_id, {"trial_id": trial_id, "number": number, "params": params})


def end(store, number, state, **columns):
    times = {"started_at": START, "finished_at": START + dt.timedelta(minutes=1)}
    store.write_trial({"trial_id": f"{number:04d}", "number": number, "state": state, **times, **columns})


def test_every_trial_is_there_in_its_state(store):
    mirror = Mirror(store)
    assert [trial.state for trial in mirror.trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING,
    ]  # fmt: skip
    complete, _, failed, running = mirror.trials
    assert complete.values == [0.98, 20]
    assert complete.params == {"method.b": 3, "training.lr": 0.01, "method.fractions": "[0.5, 1.0]"}
    assert (complete.datetime_complete - complete.datetime_start).total_seconds() == 60
    assert complete.datetime_start.astimezone(dt.UTC) == START
    assert complete.user_attrs["violation of unique_values.max"] == 1
    assert failed.user_attrs["failure_message"] == "the loss is NaN"
    assert running.user_attrs["trial_id"] == "0003"


def test_an_update_takes_over_what_is_new(store):
    mirror = Mirror(store)
    mirror.update()
    assert mirror.trials[3].user_attrs["rounds"] == "1 of 10"
    propose(store, 4)
    end(store, 3, "complete", val_top1=0.99, unique_values=9)
    mirror.update()
    assert [trial.state for trial in mirror.trials[3:]] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert mirror.trials[3].values == [0.99, 9]
    end(store, 4, "complete", val_top1=float("nan"), unique_values=9)
    mirror.update()
    assert mirror.trials[4].state == TrialState.FAIL
    before = mirror.trials
    mirror.update()
    assert mirror.trials == before


def test_replicates_come_last_and_what_lies_outside_the_space_has_no_parameters(store):
    first = store.read_proposal("0000")
    store.write_proposal("0000-r1", {**first, "trial_id": "0000-r1", "replicate": 1})
    propose(store, 4, **{"method.b": 99})
    trials = Mirror(store).trials
    assert [trial.user_attrs["trial_id"] for trial in trials] == ["0000", "0001", "0002", "0003", "0004", "0000-r1"]
    assert trials[4].params == {}
    assert trials[5].params == trials[0].params


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def test_it_is_served_and_a_new_row_appears(store):
    command = [sys.executable, ROOT / "launchers" / "dashboard.py", "--study", "digits", "--results", store.results]
    command += ["--port", "0", "--seconds", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("digits with 4 trials: http://127.0.0.1:")
        url = line.split(": ")[1].split()[0].removesuffix("/dashboard")
        with urllib.request.urlopen(f"{url}/dashboard", timeout=20) as page:
            assert b"<html" in page.read()
        (study,) = get(f"{url}/api/studies")["study_summaries"]
        assert (study["study_name"], study["directions"]) == ("digits", ["maximize", "minimize"])
        detail = f"{url}/api/studies/{study['study_id']}"
        states = [trial["state"] for trial in get(detail)["trials"]]
        assert states == ["Complete", "Pruned", "Fail", "Running"]
        end(store, 3, "complete", val_top1=0.99, unique_values=9)
        deadline = time.monotonic() + 30
        while states[3] == "Running" and time.monotonic() < deadline:
            time.sleep(0.2)
            states = [trial["state"] for trial in get(detail)["trials"]]
        assert states[3] == "Complete"
        assert get(detail)["trials"][3]["values"] == [0.99, 9]
        broken = Path(store.results, "digits", "proposals", "0004.json")
        broken.write_text("{")  # as on a store that has its troubles
        assert "0004.json: not a JSON object" in process.stderr.readline()
        propose(store, 4)
        while len(states) == 4 and time.monotonic() < deadline:
            time.sleep(0.2)
            states = [trial["state"] for trial in get(detail)["trials"]]
        assert states[4] == "Running"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def launch(*arguments, without=()):
    """Run the command where some modules are not installed."""
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {tuple(without)!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from pwfn.commands import main\n"
        "sys.exit(main(['dashboard', *sys.argv[1:]]))\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_without_the_extra_it_says_how_to_get_it(store):
    done = launch("--study", "digits", "--results", store.results, "--port", "0", without=["optuna_dashboard"])
    assert done.returncode == 2
    assert done.stderr == "error: the dashboard is an extra: python -m pip install 'pwfn[dashboard]'\n"


def test_it_needs_neither_torch_nor_ray(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = launch("--study", "digits", "--results", store.results, "--port", port, without=["torch", "ray"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --port {port}: Address already in use; 0 takes a free one\n"


def test_what_it_cannot_show_is_named(store):
    with pytest.raises(UserError, match=r"/none: there is no study; the dashboard shows what `pwfn search` began"):
        Mirror(ResultsStore(store.results, "none"))
    store.write_study({"study": "digits"})
    with pytest.raises(UserError, match=r"/digits: it holds trials run by hand; the dashboard shows what"):
        Mirror(store)
