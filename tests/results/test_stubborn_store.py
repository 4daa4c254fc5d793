"""A store that refuses for a while: with patience nothing is lost, without it or after it there is one clear line."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from disks import fill, later, make_read_only, put_in_the_way, small_disk
from s3_server import S3Server

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore

MODEL = os.urandom(300_000)
TROUBLES = [
    (fill, "t0.safetensors: cannot write: No space left on device"),
    (make_read_only, "t0.safetensors: cannot write: Read-only file system"),
    (put_in_the_way, "digits/: the folder is gone"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "2m") as folder:
        yield folder


@pytest.fixture
def store(disk: Path) -> ResultsStore:
    store = ResultsStore(str(disk / "results"), "digits", patience=60)
    store.create()
    store.append_round("t0", {"round": 0})
    return store


@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
def test_a_write_waits_until_the_disk_takes_it(
    trouble: Callable[[Path], Callable[[], None]],
    reason: str,
    store: ResultsStore,
    disk: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = trouble(disk)
    started = time.monotonic()
    with later(1.0, end), caplog.at_level(logging.WARNING):
        store.write_model("t0", MODEL)
    assert time.monotonic() - started >= 1.0
    store.append_round("t0", {"round": 1})
    assert store.read_model("t0") == MODEL
    assert [row["round"] for row in store.read_rounds("t0")] == [0, 1]
    assert not [path for path in disk.rglob("*") if path.name.endswith(".tmp")]
    first, last = caplog.messages
    assert first.endswith(f"{reason}; trying again for up to 60 s")
    assert last.startswith("the results can be used again, after ")


def test_without_patience_it_is_an_error_at_once(store: ResultsStore, disk: Path) -> None:
    fill(disk)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"t0\.safetensors: cannot write: No space left on device$"):
        replace(store, patience=0).write_model("t0", MODEL)
    assert time.monotonic() - started < 1


def test_patience_ends(store: ResultsStore, disk: Path) -> None:
    end = make_read_only(disk)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot write: Read-only file system, for 1 s now$"):
        replace(store, patience=1).write_model("t0", MODEL)
    assert 1 <= time.monotonic() - started < 2
    end()
    assert store.read_model("t0") is None


def test_everything_waits_reads_listings_and_deletions_too(store: ResultsStore, disk: Path) -> None:
    proposal = {"trial_id": "t0", "number": None, "params": {}}
    store.write_proposal("t0", proposal)
    store.write_checkpoint("t0", b"state")
    with later(0.5, put_in_the_way(disk)):
        assert store.read_proposals() == [proposal]
    with later(0.5, put_in_the_way(disk)):
        assert store.read_checkpoint("t0") == b"state"
    with later(0.5, make_read_only(disk)):
        store.delete_checkpoint("t0")
    assert store.read_checkpoint("t0") is None


def test_a_study_is_not_begun_where_nothing_can_be_written(disk: Path) -> None:
    make_read_only(disk)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot make the folder: Read-only file system$"):
        ResultsStore(str(disk / "results"), "digits", patience=600).create()
    assert time.monotonic() - started < 1


def test_what_is_not_the_disks_fault_is_said_at_once(store: ResultsStore, disk: Path) -> None:
    (disk / "results" / "digits" / "trials" / "t1.parquet").write_bytes(b"no table")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"t1\.parquet: cannot read: "):
        store.read_trials()
    assert time.monotonic() - started < 1


@pytest.mark.slow
def test_a_server_that_was_away_and_one_that_hung(caplog: pytest.LogCaptureFixture) -> None:
    with S3Server() as server:
        store = ResultsStore(server.uri("team/results"), "digits", patience=60)
        store.create()
        server.stop()

        def start_when_missed() -> None:
            while not caplog.messages:  # the S3 client tries for some seconds before it says anything
                time.sleep(0.1)
            server.start()

        with later(0, start_when_missed), caplog.at_level(logging.WARNING):
            store.write_model("t0", MODEL)
        assert store.read_model("t0") == MODEL
        assert "t0.safetensors: cannot write: " in caplog.messages[0]
        assert "the results can be used again" in caplog.messages[-1]
        server.signal(signal.SIGSTOP)
        with later(3.0, lambda: server.signal(signal.SIGCONT)):
            store.append_round("t0", {"round": 0})
        assert [row["round"] for row in store.read_rounds("t0")] == [0]
