"""A node that breaks under every trial: on a real cluster of two nodes the trials go on on the other one."""

import json
import os
from pathlib import Path

import pytest
from test_sweep import pytestmark, sweep  # noqa: F401  (the same marks)
from test_trial import go_on, result
from unruly_models import BAD_BATCH, register

from analysis import load
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace
from pwfn.sweep.cluster import prepare_environment
from pwfn.trial.rows import Trial
from pwfn.trial.run import run_trial


@pytest.fixture(scope="module")
def broken_node():
    prepare_environment(local=True)
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    broken = nodes.add_node(num_cpus=1)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address=nodes.address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={
            "env_vars": {"PYTHONPATH": path, "PWFN_TEST_BROKEN_NODE": broken.node_id},
            "worker_process_setup_hook": "unruly_models.register",
        },
    )
    yield broken.node_id
    ray.shutdown()
    nodes.shutdown()


OVERRIDES = ("model.name=breaking_mlp", f"training.batch_size={BAD_BATCH}", "search.baselines=false")


@pytest.mark.slow
def test_trials_go_on_elsewhere_and_the_node_is_named(broken_node, tmp_path, monkeypatch):
    import torch

    store, output = sweep(tmp_path, *OVERRIDES, trials=6)
    rows = store.read_trials()
    assert [row["state"] for row in rows] == ["complete"] * 6, [row["failure_message"] for row in rows]
    [place] = json.loads((tmp_path / "small" / "machines.json").read_text())["places"]
    assert broken_node[:8] in place["place"]
    # Ray decides which trials come to that node: a second one that does is the last.
    assert sum(row["retries"] for row in rows) == len(place["failures"]) <= 2
    assert place["left_alone"] == (len(place["failures"]) == 2)
    assert {each["failure_class"] for each in place["failures"]} == {"device"}
    if place["left_alone"]:
        assert "is left alone from now on" in output
    assert any(broken_node[:8] in note for note in load(str(tmp_path / "small")).notes)
    # The undisturbed table, from this very process.
    register()
    monkeypatch.setenv("PWFN_TEST_BROKEN_NODE", "none")
    monkeypatch.setattr("ray.get_runtime_context", lambda: type("C", (), {"get_node_id": staticmethod(str)})())
    other = ResultsStore(str(tmp_path / "other"), "small")
    other.create()
    for row in rows[:2]:
        proposal = store.read_proposal(row["trial_id"])
        config = SearchSpace.load(Path(__file__).parents[1] / "small_space.yaml", OVERRIDES, trials=6).trial_config(
            proposal["params"], proposal["number"]
        )
        alone = Trial(row["trial_id"], proposal["number"], "small", config)
        run_trial(alone, other, device=torch.device("cpu"), replicas=Replicas(), on_round=go_on)
        assert result([other.read_trial(row["trial_id"])]) == result([row])
