"""The same store at a real S3 server on loopback."""

import os
from collections.abc import Iterator

import pytest
from s3_server import S3Server

import analysis
from pwfn.errors import UserError
from pwfn.results.store import ResultsStore


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def at(bucket: str, server: S3Server) -> ResultsStore:
    return ResultsStore(server.uri("team/results", bucket), "digits")


def test_everything_is_read_back(s3: S3Server) -> None:
    store = at("bucket", s3)
    assert store.read_study() is None
    assert store.read_trials() == []
    assert store.read_rounds("t0") == []
    assert store.read_baseline("key") is None
    store.create()
    store.write_study({"study": "digits"})
    for number in range(3):
        store.append_round(f"t{number}", {"round": 1})
        store.append_round(f"t{number}", {"round": 0})
        store.append_round(f"t{number}", {"round": 1, "fraction": 1.0})
        store.write_trial({"trial_id": f"t{number}", "number": number})
    store.write_baseline("key", b"weights", {"epochs": 3})
    store.write_checkpoint("t0", b"state")
    for _ in range(2):
        assert [row["number"] for row in store.read_trials()] == [0, 1, 2]
        assert [(row["round"], row["fraction"]) for row in store.read_rounds("t1")] == [(0, None), (1, 1.0)]
        store.compact()
    assert store.read_study() == {"schema_version": 2, "study": "digits"}
    assert store.read_baseline("key") == (b"weights", {"epochs": 3})
    store.delete_checkpoint("t0")
    assert store.read_checkpoint("t0") is None


def test_a_large_object_arrives_whole(s3: S3Server) -> None:
    store = at("bucket", s3)
    content = os.urandom(12_000_000)
    store.write_model("t0", content)
    assert store.model_path("t0") == "bucket/team/results/digits/models/t0.safetensors"
    assert store.read_model("t0") == content


def test_the_report_reads_and_writes_there(s3: S3Server) -> None:
    store = at("bucket", s3)
    store.write_study({"study": "digits"})
    store.write_trial({"trial_id": "t7", "state": "complete", "val_top1": 0.9, "unique_values": 7})
    folder = analysis.study_folder(store.results, "digits")
    study = analysis.load(folder)
    assert "t7" in set(analysis.front(study.trials, study.objectives)["trial_id"])
    paths = analysis.write_report(study, analysis.study_folder(folder, "report"))
    assert paths[0] == "bucket/team/results/digits/report/front.png"
    with pytest.raises(analysis.AnalysisError, match="no study digts; did you mean digits"):
        analysis.load(analysis.study_folder(store.results, "digts"))


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    with pytest.raises(UserError, match=r"^nobucket/team/results/.*: cannot write: .*bucket does not exist"):
        at("nobucket", s3).create()


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(UserError, match=r"^bucket/team/results/.*: cannot write: .*Could not connect to server"):
        at("bucket", S3Server()).create()
