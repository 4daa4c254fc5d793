"""A sweep whose results cannot be written for a while ends with the table of one that nobody disturbed."""

import re
import threading
import time
from io import StringIO
from pathlib import Path

import pytest
from disks import fill, make_read_only, small_disk
from rich.console import Console
from test_trial import SPACE, make_trial, result, run

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    # Ray leaves sockets and processes for the garbage collector, and warns of its own deprecations.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SECONDS = 4.0
"""For which nothing can be written."""


@pytest.fixture(scope="module")
def joined():
    from pwfn.sweep.cluster import connected

    with connected(None, dashboard=False):
        yield


def sweep(store):
    from pwfn.sweep.sweep import search

    study = open_study(SearchSpace.load(SPACE, trials=1), store, command="test")
    output = StringIO()
    search(study, address=None, console=Console(file=output, width=200))
    return output.getvalue()


def table(store):
    rows = store.read_trials()
    assert all(row.pop("commit", None) for row in rows)  # a commit made meanwhile changes no number
    return result(rows), [result(store.read_rounds(row["trial_id"])) for row in rows]


@pytest.fixture(scope="module")
def undisturbed(joined, tmp_path_factory):
    store = ResultsStore(str(tmp_path_factory.mktemp("undisturbed")), "small")
    sweep(store)
    return table(store)


@pytest.mark.parametrize(
    ("trouble", "reason"), [(fill, "No space left on device"), (make_read_only, "Read-only file system")]
)
def test_a_disk_that_is_full_or_read_only_for_a_while_costs_no_trial(undisturbed, tmp_path, trouble, reason):
    with small_disk(tmp_path / "disk", "8m") as disk:
        store = ResultsStore(str(disk / "results"), "small")
        rounds = disk / "results" / "small" / "rounds"
        at_most = []

        def disturb() -> None:
            while not list(rounds.glob("*.parquet")):
                time.sleep(0.02)
            end = trouble(disk)
            before = written(store)
            time.sleep(SECONDS)
            at_most.append(len(written(store)) - len(before))
            end()

        thread = threading.Thread(target=disturb)
        thread.start()
        output = sweep(store)
        thread.join()
        assert at_most == [0]
        assert table(store) == undisturbed
        assert not list(disk.rglob("*.tmp"))
        assert re.search(rf"trial 0000: .*: cannot write: {reason}; trying again for up to 600 s\n", output)
        assert re.search(r"trial 0000: the results can be used again, after \d+ s\n", output)


def test_a_trial_that_gives_up_waiting_has_no_row_and_goes_on_later(tmp_path):
    undisturbed = ResultsStore(str(tmp_path / "undisturbed"), "test")
    undisturbed.create()
    run(make_trial(), undisturbed)
    with small_disk(tmp_path / "disk", "8m") as disk:
        store = ResultsStore(str(disk / "results"), "test", patience=0.5)
        store.create()
        ends = []
        with pytest.raises(UserError, match=r"cannot write: Read-only file system, for \d s now"):
            run(make_trial(), store, lambda row, summary: ends.append(make_read_only(disk)) or Decision.CONTINUE)
        ends.pop()()
        assert ends == []
        assert store.read_trial("0000") is None
        rounds = []
        run(make_trial(), store, lambda row, summary: rounds.append(row["round"]) or Decision.CONTINUE)
        assert rounds == [1, 2]
        (row,) = result(store.read_trials())
        (expected,) = result(undisturbed.read_trials())
        assert {name for name in row if row[name] != expected[name]} <= {"commit", "retries", "lost_seconds"}


def written(store):
    """What the study holds, by path and size."""
    return {(path, path.stat().st_size) for path in Path(store.results).rglob("*") if path.suffix == ".parquet"}
