"""One of several processes creates a file: on disk, at an S3 server, and where no conditional put is possible."""

import errno
import functools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_server import S3Server

from pwfn import whole
from pwfn.results.store import ResultsStore
from pwfn.whole import write_new


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:
        yield server


@pytest.fixture(params=["disk", "s3"])
def store(request, tmp_path, s3):
    store = ResultsStore(str(tmp_path) if request.param == "disk" else s3.uri(tmp_path.name), "small")
    store.create()
    return store


def test_one_of_many_succeeds_and_its_content_stays(store):
    for round_ in range(5):
        with ThreadPoolExecutor(8) as pool:
            create = functools.partial(store.create_record, f"claims/{round_}")
            made = list(pool.map(create, [{"by": each} for each in range(8)]))
        assert made.count(True) == 1
        assert store.read_record(f"claims/{round_}") == {"by": made.index(True)}
    assert store.record_names("claims") == list("01234")


def test_whoever_asks_again_recognises_its_own(store):
    """As after an answer that was lost on the network."""
    assert store.create_record("claims/x", {"by": 1})
    assert store.create_record("claims/x", {"by": 1})
    assert not store.create_record("claims/x", {"by": 2})


def test_a_disk_without_hard_links(tmp_path, monkeypatch):
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(whole.os, "link", refuse)
    assert write_new(tmp_path / "x", b"first")
    assert not write_new(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_where_no_conditional_put_is_possible_a_warning_says_so(s3, tmp_path):
    """obstore reads no profile files, pyarrow does."""
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = user\naws_secret_access_key = word\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"AWS_SHARED_CREDENTIALS_FILE": str(profile), "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"}
    code = (
        "import sys; from pwfn.results.store import ResultsStore\n"
        "store = ResultsStore(sys.argv[1], 'small')\n"
        "print(store.create_record('claims/x', {'by': 1}), store.create_record('claims/x', {'by': 2}))\n"
        "print(store.read_record('claims/x'))\n"
    )
    command = [sys.executable, "-c", code, s3.uri(tmp_path.name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["True False", "{'by': 1}"], done.stderr
    assert "takes no conditional puts from here (" in done.stderr
    assert len(done.stderr.splitlines()) == 1
