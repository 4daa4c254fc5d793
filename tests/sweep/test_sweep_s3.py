"""A whole sweep on a real S3 server: rows, checkpoints, networks, resume, report, export; also with two workers."""

from io import StringIO

import pytest
from rich.console import Console
from s3_server import S3Server
from test_trial import SPACE, result

import analysis
from pwfn.commands import main
from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    # Ray leaves sockets and processes for the garbage collector, and warns of its own deprecations.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:  # before Ray: its processes inherit the credentials
        yield server


@pytest.fixture(scope="module")
def joined(s3):
    from pwfn.sweep.cluster import connected

    with connected(None, dashboard=True):
        yield


def sweep(results, *overrides, trials=2):
    from pwfn.sweep.sweep import search

    store = ResultsStore(results, "small")
    space = SearchSpace.load(SPACE, ["search.max_concurrent=1", *overrides], trials=trials)  # one process to start
    study = open_study(space, store, command="test")
    output = StringIO()
    search(study, address=None, console=Console(file=output, width=200))
    return store, output.getvalue()


@pytest.fixture(scope="module")
def finished(joined, s3):
    return sweep(s3.uri("team/results"), "search.keep_models=1")


def test_everything_is_on_s3(finished, s3, tmp_path):
    store, output = finished
    rows = store.read_trials()
    assert [(row["trial_id"], row["state"]) for row in rows] == [(f"{n:04d}", "complete") for n in range(2)]
    assert all(len(store.read_rounds(row["trial_id"])) == 3 for row in rows)
    assert "kept 1 network " in output
    assert len(store.model_sizes()) == 1
    keys = s3.object_names()
    assert {key.split("/")[3] for key in keys} == {
        "study.json", "drivers", "proposals", "trials", "rounds", "values", "models", "baseline",
    }  # fmt: skip
    assert store.read_study()["inputs"]
    local, _ = sweep(str(tmp_path), "search.keep_models=1")
    assert result(without_commit(rows)) == result(without_commit(local.read_trials()))


def without_commit(rows):
    return [{name: value for name, value in row.items() if name != "commit"} for row in rows]


def test_the_report_is_made_there(finished, s3, capsys):
    store, _ = finished
    assert main(["report", "--study", "small", "--results", store.results]) == 0
    output = capsys.readouterr().out
    assert "digits_mlp on digits" in output
    assert "bucket/team/results/small/report/report.html" in output
    assert "team/results/small/report/report.html" in s3.object_names()
    assert len(analysis.load(analysis.study_folder(store.results, "small")).trials) == 2


def test_a_network_is_exported_from_there(finished, tmp_path, capsys):
    store, _ = finished
    kept, *_ = store.model_sizes()
    out = tmp_path / "model.pwfn.safetensors"
    arguments = ["--results", store.results, "--study", "small", "--out", str(out)]
    assert main(["export", *arguments, "--trial", kept]) == 0, capsys.readouterr().err
    assert out.stat().st_size > 1000
    (deleted,) = {row["trial_id"] for row in store.read_trials()} - store.model_sizes().keys()
    assert main(["export", *arguments, "--trial", deleted]) == 2
    assert f"pwfn train --results '{store.results}' --study small" in capsys.readouterr().err


def test_the_same_command_goes_on_there(finished, s3):
    store, _ = finished
    before = store.read_trials()
    with pytest.raises(UserError, match=r"results.*/small was begun otherwise \(fixed\.training\.batch_size: 64 -> 32"):
        sweep(store.results, "search.keep_models=1", "training.batch_size=32")
    store.write_checkpoint("0000", b"left by a crash")
    _, output = sweep(store.results, "search.keep_models=1", trials=3)
    rows = store.read_trials()
    assert rows[:2] == before
    assert [row["trial_id"] for row in rows] == ["0000", "0001", "0002"]
    assert store.read_checkpoint("0000") is None
    assert len(store.model_sizes()) == 1


def test_two_workers_share_a_trial_there(joined, s3):
    store, _ = sweep(s3.uri("two/results"), "resources.workers=2", "resources.cpus_per_worker=0.5", trials=1)
    (row,) = store.read_trials()
    assert (row["state"], row["failure_message"]) == ("complete", None)
    assert len(store.read_rounds("0000")) == 3
    assert not [key for key in s3.object_names() if "/ray/" in key]
