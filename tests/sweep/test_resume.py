"""A sweep that goes on with other data or another checkpoint: refused, and forced."""

import io
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace
from pwfn.sweep.by_hand import config_of_trial, warn_of_differences
from pwfn.trial.fingerprint import fingerprint_inputs

SPACE = Path(__file__).parents[1] / "small_space.yaml"
pytestmark = [
    pytest.mark.cluster,
    # Ray leaves sockets and processes for the garbage collector, and warns of its own deprecations.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def joined():
    """Ray on this machine, for all sweeps of this file."""
    from pwfn.sweep.cluster import connected

    with connected(None, dashboard=False):
        yield


def sweep(folder, *overrides, trials=1, force=False):
    from pwfn.sweep.opening import Request
    from pwfn.sweep.sweep import search

    space = SearchSpace.load(SPACE, overrides, trials=trials)
    study = open_study(space, ResultsStore(str(folder), "small"), command="test", force=force)
    output = StringIO()
    search(study, address=None, console=Console(file=output, width=200), request=Request(force=force))
    return study.store, output.getvalue()


def write_digits(path: Path, first: int, num: int) -> None:
    """Some of scikit-learn's digits in Hugging Face's layout."""
    digits = load_digits()
    contents = []
    for pixels in digits.images[first : first + num]:
        buffer = io.BytesIO()
        Image.fromarray((pixels * 15).astype(np.uint8)).save(buffer, "PNG")
        contents.append({"bytes": buffer.getvalue(), "path": None})
    images = pa.array(contents, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"img": images, "label": digits.target[first : first + num]}), path)


def test_other_data_is_refused_and_forced_it_goes_on(joined, tmp_path, caplog):
    data = tmp_path / "data"
    data.mkdir()
    write_digits(data / "train.parquet", 0, 300)
    write_digits(data / "test.parquet", 300, 60)
    overrides = ["data.name=parquet", f"data.root={data}", "data.test_images=null", "method.fractions=[1.0]"]
    store, _ = sweep(tmp_path, *overrides)
    rows = store.read_trials()
    write_digits(data / "test.parquet", 300, 50)
    with pytest.raises(UserError, match=r"begun otherwise \(number of test images: 60 -> 50; test images: .* -> .*\)"):
        sweep(tmp_path, *overrides, trials=2)
    assert store.read_trials() == rows
    warn_of_differences(store, config_of_trial(store, "0000"))
    assert "warning: study small was made otherwise (number of test images: 60 -> 50; " in caplog.text

    sweep(tmp_path, *overrides, trials=2, force=True)
    assert [row["state"] for row in store.read_trials()] == ["complete"] * 2
    (note,) = store.read_study()["forced"]
    assert note["differences"][0] == "number of test images: 60 -> 50"


@pytest.mark.slow
def test_another_checkpoint_under_the_same_name_is_another_input(tmp_path):
    checkpoint = tmp_path / "float.safetensors"
    space = SearchSpace.load(SPACE, [f"model.checkpoint={checkpoint}"])
    config = space.trial_config(space.start_settings()[0], 0)
    checkpoint.write_bytes(b"weights")
    before = fingerprint_inputs(config)
    assert before["number of training images"] == "1797"  # the test images are drawn from them
    checkpoint.write_bytes(b"Weights")
    after = fingerprint_inputs(config)
    assert {name for name in before if before[name] != after[name]} == {"model.checkpoint"}
