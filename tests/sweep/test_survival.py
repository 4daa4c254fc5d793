"""What kills a sweep's parts does not change its table: real signals, on a real cluster of several nodes."""

import os
import socket
from pathlib import Path

import psutil
import pytest
import unruly_models
from disturbing import assert_nothing_is_left_over, first_round_of, kill, when
from ruamel.yaml import YAML
from test_sweep import SLOW, disturbed, sweep
from test_sweep import pytestmark as ray_marks
from test_trial import SPACE
from undisturbed import run_alone, table

from pwfn.results.store import ResultsStore
from pwfn.sweep.cluster import prepare_environment

pytestmark = [*ray_marks, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def cluster():
    prepare_environment(local=True)
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": True,
            "dashboard_port": free_port(),
            # What Ray allows the node is what is used now, and 8 GB more: soon eaten, where the machine has far more.
            "_system_config": {"memory_usage_threshold": used_memory(8 * 2**30), "memory_monitor_refresh_ms": 100},
        },
    )
    nodes.add_node(num_cpus=1)
    ray.init(
        address=nodes.address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={
            "env_vars": {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])},
            "worker_process_setup_hook": "unruly_models.register",
        },
    )
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def used_memory(more: int) -> float:
    memory = psutil.virtual_memory()
    return min(0.95, (memory.total - memory.available + more) / memory.total)


def test_loss_of_a_node(cluster, tmp_path):
    """The node that is not the driver's dies with its trial, which goes on elsewhere."""
    undisturbed = run_alone(tmp_path / "alone", *SLOW)
    lost = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    store = disturbed(tmp_path, lambda: cluster.remove_node(lost, allow_graceful=False))
    cluster.add_node(num_cpus=1)
    assert table(store) == table(undisturbed)
    assert_nothing_is_left_over()


def test_a_trial_that_hangs_is_ended_as_timeout_and_the_others_are_untouched(cluster, tmp_path):
    space = with_bad_batch_first(tmp_path)
    reference, _ = sweep(tmp_path / "undisturbed", "model.name=digits_mlp", space=space)
    store, output = sweep(tmp_path / "hang", "model.name=hanging_mlp", "search.trial_minutes=0.25", space=space)
    hung, *others = store.read_trials()
    assert (hung["state"], hung["failure_class"]) == ("failed", "timeout")
    assert "search.trial_minutes is 0.25" in hung["failure_message"]
    assert hung["lost_seconds"] > 10
    assert "timeout" in output
    results = [[row["test_top1"], row["unique_values"], row["entropy_bits"]] for row in others]
    assert results == [
        [row["test_top1"], row["unique_values"], row["entropy_bits"]] for row in reference.read_trials()[1:]
    ]
    assert_nothing_is_left_over()


def test_a_trial_that_is_lost_each_time_it_starts_becomes_a_row(cluster, tmp_path):
    store, output = sweep(tmp_path, "model.name=deadly_mlp", space=with_bad_batch_first(tmp_path))
    lost, *others = store.read_trials()
    assert (lost["state"], lost["failure_class"], lost["retries"]) == ("failed", "lost", 3)
    assert "its process was lost each time it was started, the last time: The actor died" in lost["failure_message"]
    assert lost["lost_seconds"] > 0
    assert [row["state"] for row in others] == ["complete"] * 2
    assert "1 failed" in output
    assert not list(Path(tmp_path, "small", "attempts").iterdir())
    assert_nothing_is_left_over()


def test_a_trial_that_eats_memory_goes_on_with_smaller_parts_of_its_batches(cluster, tmp_path):
    store, _ = sweep(tmp_path, "model.name=greedy_mlp", space=with_bad_batch_first(tmp_path), trials=1)
    (row,) = store.read_trials()
    assert (row["state"], row["micro_batches"]) == ("complete", 2)
    assert row["retries"] >= 1
    assert_nothing_is_left_over()


def test_sigkill_of_ray_trains_controller(cluster, tmp_path):
    overrides = ("training.rest_epochs=200", "resources.workers=2")
    reference, _ = sweep(tmp_path / "undisturbed", *overrides, trials=1)
    store = ResultsStore(str(tmp_path / "disturbed"), "small")
    thread = when(first_round_of(store, "0000"), lambda: kill("TrainController"))
    sweep(tmp_path / "disturbed", *overrides, trials=1)
    thread.join()
    assert table(store) == table(reference)
    assert store.read_trials()[0]["retries"] >= 1
    assert_nothing_is_left_over()


def test_a_sweep_of_two_worker_trials_survives_the_kill_of_a_worker(cluster, tmp_path):
    """SIGKILL of one data-parallel worker after the first round; the trial ends like one that nobody disturbed."""
    undisturbed, _ = sweep(tmp_path / "undisturbed", "resources.workers=2", "training.rest_epochs=100", trials=1)
    store = ResultsStore(str(tmp_path / "disturbed"), "small")
    killed = []
    thread = when(first_round_of(store, "0000"), lambda: killed.append(kill("RayTrainWorker")))
    sweep(tmp_path / "disturbed", "resources.workers=2", "training.rest_epochs=100", trials=1)
    thread.join()
    assert killed
    assert table(store) == table(undisturbed)


def with_bad_batch_first(folder: Path) -> Path:
    """Write the small space such that the first trial has the batch size at which the unruly models misbehave."""
    space = YAML(typ="safe").load(SPACE)
    del space["fixed"]["training"]["batch_size"]
    space["vary"] = {"training.batch_size": {"choice": [unruly_models.BAD_BATCH, 64]}, "method.b": {"int": [3, 7]}}
    space["start_with"] = [
        {"training.batch_size": size, "method.b": b} for size, b in [(unruly_models.BAD_BATCH, 7), (64, 7), (64, 5)]
    ]
    path = folder / "bad_batch_first.yaml"
    YAML(typ="safe").dump(space, path)
    return path
