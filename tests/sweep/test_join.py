"""Two real searches of one study at once: the second is refused, or joins, and every row agrees with its proposal."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from driving import agrees
from test_driver import LAUNCHER, num_rounds, wait_for
from test_sweep import pytestmark as ray_marks
from test_trial import SPACE

from pwfn.results.store import ResultsStore
from pwfn.search.study import SearchStudy
from pwfn.space.space import SearchSpace

pytestmark = [*ray_marks, pytest.mark.slow]


LONG = ("training.rest_epochs=400", "search.max_concurrent=1")
"""Six such trials take longer than another search needs to start."""


def search(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(LAUNCHER), "--space", str(SPACE), "--results", str(folder), "--study", "small"]
    settings = ["--trials", "6", "--set", *LONG]
    return subprocess.Popen(
        [*command, *settings, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )


@pytest.fixture
def short_folder():
    """The paths of Ray's sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        yield Path(folder)


def test_a_second_search_is_refused_and_one_that_joins_shares_the_trials(tmp_path, short_folder):
    store = ResultsStore(str(tmp_path), "small")
    first = search(tmp_path)
    wait_for(lambda: num_rounds(store) >= 1, first)
    refused, joined = search(tmp_path), search(tmp_path, "--join", "--ray-temp-dir", str(short_folder))
    _, errors = refused.communicate(timeout=200)
    assert refused.returncode == 2
    assert len(errors.splitlines()) == 1
    assert f"small is run by process {first.pid} on " in errors
    for process in (first, joined):
        output, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors + output
    study = SearchStudy(SearchSpace.load(SPACE, LONG, trials=6), store)
    assert agrees(study)
    assert len({each["driver"] for each in study.proposals()}) == 2
    assert list(short_folder.glob("session_2*"))
