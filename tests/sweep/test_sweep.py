"""Sweeps on a real Ray cluster of two nodes on this machine, on loopback."""

import io
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disturbing import assert_nothing_is_left_over, first_round_of, kill, processes, when
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from test_trial import SPACE, make_trial, result
from undisturbed import run_alone, table

from analysis import front, load
from analysis.series import panels
from analysis.verdict import verdict
from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace
from pwfn.sweep.by_hand import config_of_trial, warn_of_differences
from pwfn.sweep.cluster import prepare_environment
from pwfn.trial.fingerprint import fingerprint_inputs

pytestmark = [
    pytest.mark.cluster,
    # Ray leaves sockets and processes for the garbage collector, and warns of its own deprecations.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    prepare_environment(local=True)
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def sweep(folder, *overrides, trials=3, name="small", space=SPACE, confirm=0, force=False):
    from pwfn.sweep.opening import Request
    from pwfn.sweep.sweep import search

    space = SearchSpace.load(space, overrides, trials=trials)
    study = open_study(space, ResultsStore(str(folder), name), command="test", force=force)
    output = StringIO()
    console = Console(file=output, width=200)
    search(study, address=None, console=console, confirm=confirm, request=Request(force=force))
    return study.store, output.getvalue()


FINISHED = ("search.baselines=true", "search.max_concurrent=1")
"""Settings of the sweep that other tests look at; each process takes seconds to start."""


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):
    """A sweep of three trials, with baselines, that other tests look at."""
    folder = tmp_path_factory.mktemp("finished")
    return (*sweep(folder, *FINISHED), folder)


def searched(store):
    return [row for row in store.read_trials() if row["number"] is not None]


def test_every_trial_is_placed_and_written(cluster, finished):
    store, output, _ = finished
    rows = searched(store)
    assert [row["trial_id"] for row in rows] == ["0000", "0001", "0002"]
    assert {row["state"] for row in rows} == {"complete"}
    assert len({row["seed"] for row in rows}) == 3
    assert (rows[0]["method.b"], rows[0]["training.lr"]) == (7, 0.001)  # the paper's setting comes first
    assert {row["data.split_seed"] for row in rows} == {1}
    assert "18/18 done, 0 running, 0 failed" in output  # fifteen of them are baselines
    assert not Path(store.results, "small", "ray").exists()


def test_baselines_run_beside_a_search_and_are_told_to_no_sampler(finished):
    """k-means in three kinds, with 4 to 64 values: rows, and a series of its own in the report."""
    store, _, _ = finished
    rows = {row["trial_id"]: row for row in store.read_trials()}
    names = [
        f"{name}-{num_values}"
        for name in ("kmeans", "kmeans-fisher", "kmeans-gptq")
        for num_values in (4, 8, 16, 32, 64)
    ]
    assert set(rows) == {"0000", "0001", "0002", *names}
    assert {rows[name]["state"] for name in names} == {"complete"}
    assert all(rows[name]["unique_values"] <= int(name.rpartition("-")[2]) for name in names)
    assert {rows[name]["float_val_top1"] for name in names} == {rows["0000"]["float_val_top1"]}
    assert all(rows[name]["number"] is None for name in names)
    assert [each["trial_id"] for each in study_of(store).proposals()] == ["0000", "0001", "0002"]
    study = load(f"{store.results}/{store.study}")
    assert study.num_ended == 3
    [(_, series)] = panels([study])
    assert [one.method for one in series] == ["pwfn", "kmeans"]
    assert not any("no baseline has been run" in sentence for sentence in verdict(series))


@pytest.mark.parametrize(
    ("overrides", "slots"),
    [([], 2), (["search.max_concurrent=1"], 1), (["resources.workers=2"], 1), (["resources.cpus_per_worker=0.5"], 4)],
)
def test_as_many_trials_at_once_as_fit(cluster, overrides, slots):
    from pwfn.sweep.placement import num_slots

    assert num_slots(SearchSpace.load(SPACE, overrides)) == slots


def test_the_same_command_again_runs_nothing_twice_and_more_trials_go_on(cluster, finished, tmp_path):
    finished_store, _, folder = finished
    before = finished_store.read_trials()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)  # other tests look at the three trials
    store, output = sweep(tmp_path, *FINISHED)
    assert store.read_trials() == before
    assert "trial" not in output
    _, output = sweep(tmp_path, *FINISHED, trials=4)
    assert [row for row in store.read_trials() if row["trial_id"] != "0003"] == before
    assert [row["trial_id"] for row in searched(store)] == ["0000", "0001", "0002", "0003"]


@pytest.mark.slow
def test_the_front_runs_again_with_other_seeds(cluster, tmp_path):
    """In batches, so that Tune has to ask again; the second command runs the replicates that the first did not."""
    for confirm in (1, 2):
        store, output = sweep(tmp_path, "search.batch=2", confirm=confirm)
        [(_, [one])] = panels([load(f"{tmp_path}/small")])
        members = front(one.points, one.objectives)
        assert (members["num_seeds"] == confirm + 1).all()
        done = len(store.read_trials())
        assert f"{done}/{done} done" in output
    assert "trial 0000 " not in output
    replicated = one.points[one.points["num_seeds"] > 1]
    for trial_id, seeds in zip(replicated["trial_id"], replicated["trial_ids"], strict=True):
        assert seeds == [trial_id, f"{trial_id}-r1", f"{trial_id}-r2"][: len(seeds)]
    assert done == one.points["num_seeds"].sum() == one.trials["seed"].nunique()
    assert one.trials["float_val_top1"].nunique() == 1
    assert "trial" not in sweep(tmp_path, "search.batch=2", confirm=2)[1]


def test_a_sweep_leaves_no_process_behind_in_a_cluster_that_goes_on(cluster, finished):
    _, alive = psutil.wait_procs([*processes("ImplicitFunc"), *processes("Desk")], timeout=10)  # Ray ends them soon
    assert alive == []


def test_another_space_is_refused_with_the_difference(cluster, finished):
    store, _, folder = finished
    before = store.read_study()
    with pytest.raises(
        UserError, match=r"begun otherwise \(fixed.training.batch_size: 64 -> 32\); give this study another"
    ):
        sweep(folder, "training.batch_size=32")
    assert store.read_study() == before


def test_a_sweep_whose_trials_all_fail_alike_stops_and_says_why(cluster, tmp_path):
    with pytest.raises(
        UserError, match=r"the first 5 trials all failed alike \(nan\), the last one with: the training"
    ):
        sweep(tmp_path, "training.lr=1e30", "training.clip_norm=null", "search.max_concurrent=1", trials=20)
    rows = ResultsStore(str(tmp_path), "small").read_trials()
    assert 5 <= len(rows) < 20
    assert {(row["state"], row["failure_class"]) for row in rows} == {("failed", "nan")}


@pytest.mark.slow
def test_a_budget_ends_a_sweep_after_the_running_rounds_and_the_next_one_goes_on(cluster, finished, tmp_path):
    """A budget that is used up before a trial starts runs none, so each is twice the last; all rounds run once."""
    undisturbed, _, _ = finished
    hours = 0.0001
    store, _ = sweep(tmp_path, f"search.hours={hours}")
    while len(store.read_trials()) < 3:
        hours *= 2
        store, _ = sweep(tmp_path, f"search.hours={hours}")
    assert hours > 0.0001
    assert result(store.read_trials()) == result(searched(undisturbed))
    assert not list(Path(tmp_path, "small", "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.checkpoint=/nowhere.safetensors"], r"/nowhere\.safetensors"),
        pytest.param(
            ["data.name=parquet", "data.root=/nowhere"],
            r"data\.root: folder /nowhere does not exist",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_input_that_no_trial_can_use_ends_the_sweep_before_its_first_trial(cluster, tmp_path, overrides, expected):
    with pytest.raises(UserError, match=expected):
        sweep(tmp_path, *overrides)
    assert not list(Path(tmp_path, "small", "trials").glob("*"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("resources.gpus_per_worker=1", r"needs 1 GPU .* but the cluster has 0; try --set resources.gpus_per_worker"),
        ("resources.cpus_per_worker=3", r"needs 3 CPU .* but the cluster has 2; try --set resources.cpus_per_worker"),
        ("resources.custom={a100: 1}", r"needs 1 a100 .* but the cluster has 0"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused_at_once(cluster, tmp_path, override, expected):
    with pytest.raises(UserError, match=expected):
        sweep(tmp_path, override)


SLOW = ("training.rest_epochs=60", "search.max_concurrent=2")
"""Trials of some seconds, so that there is time to kill them."""


def disturbed(tmp_path, act):
    """Run a sweep of three trials and act after the first round of trial 1."""
    store, done = ResultsStore(str(tmp_path), "small"), []
    thread = when(first_round_of(store, "0001"), lambda: done.append(act()))
    sweep(tmp_path, *SLOW)
    thread.join()
    assert done, "the disturbance never came"
    return store


def test_sigkill_of_a_trial_process(cluster, tmp_path):
    store = disturbed(tmp_path, lambda: kill("ImplicitFunc"))
    assert table(store) == table(run_alone(tmp_path / "alone", *SLOW))
    assert sum(row["retries"] for row in store.read_trials()) == 1
    assert_nothing_is_left_over()


def by_hand(trial, folder, name):
    from pwfn.sweep.by_hand import run_by_hand

    store = ResultsStore(str(folder), name)
    return run_by_hand(trial.config, store, address=None, command="test"), store


def test_two_workers_give_the_result_of_one_without_noise(cluster, tmp_path):
    alone, store = by_hand(make_trial("method.noise=false"), tmp_path, "alone")
    together, store2 = by_hand(make_trial("method.noise=false", "resources.workers=2"), tmp_path, "together")
    assert together["state"] == "complete"
    for one, two in zip(store.read_rounds("0000"), store2.read_rounds("0000"), strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-4)
        assert one["unique_values"] == pytest.approx(two["unique_values"], abs=1)
        assert one["num_fixed"] == two["num_fixed"]
        assert one["val_top1"] == pytest.approx(two["val_top1"], abs=0.01)
    for name in ("test_top1", "float_test_top1", "num_weights", "coverage"):
        assert alone[name] == pytest.approx(together[name], abs=0.01)


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


def test_other_data_is_refused_and_forced_it_goes_on(cluster, tmp_path, caplog):
    data = tmp_path / "data"
    data.mkdir()
    write_digits(data / "train.parquet", 0, 300)
    write_digits(data / "test.parquet", 300, 60)
    overrides = ["data.name=parquet", f"data.root={data}", "data.test_images=null", "method.fractions=[1.0]"]
    store, _ = sweep(tmp_path, *overrides, trials=1)
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


def study_of(store):
    space = SearchSpace.from_resolved(store.read_study()["space"])
    return open_study(space, store, command="test")
