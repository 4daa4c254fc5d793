"""K-means as a method: scopes, weighting, orders, replicas, a whole trial."""

import dataclasses
import json
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from method_cases import make_task

from pwfn.codebook import measure_codebook
from pwfn.config import KmeansConfig, ModelConfig
from pwfn.errors import DivergedWeightsError, UserError
from pwfn.export import load_state
from pwfn.methods.kmeans.method import Kmeans, relative_importance
from pwfn.methods.kmeans.values import kmeans_values
from pwfn.models import build_network
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas

ROOT = Path(__file__).parents[3]


def weights_of(task):
    return {name: p.detach().clone() for name, p in split_parameters(task.network).fixable.items()}


def flat(weights):
    return torch.cat([weight.flatten() for weight in weights.values()])


def fixed(**config):
    task = make_task(method=KmeansConfig(**config))
    before = weights_of(task)
    fixing = Kmeans(task).fix(0)
    return before, weights_of(task), fixing


def test_a_codebook_for_the_network():
    before, after, fixing = fixed(num_values=6)
    values = flat(after).unique()
    assert values.tolist() == fixing.codebook.values.tolist()
    assert len(values) == 6
    distances = (flat(before)[:, None] - values).abs()
    assert torch.equal(flat(after), values[distances.argmin(dim=1)])


def test_a_codebook_for_each_tensor():
    before, after, fixing = fixed(num_values=3, scope="tensor")
    for name, weight in before.items():
        values = torch.from_numpy(kmeans_values(weight.flatten().numpy(), 3))
        assert len(values) == 3
        distances = (weight[..., None] - values).abs()
        assert torch.equal(after[name], values[distances.argmin(dim=-1)])
    assert len(fixing.codebook.values) == 3 * len(after)


@pytest.mark.parametrize("scope", ["network", "tensor"])
@pytest.mark.parametrize("network", ["convolutional", "without_batchnorm"])
def test_path_following_and_gptq_use_the_same_values_and_spare_the_outputs(scope, network):
    errors, codebooks = {}, {}
    for assignment in ("nearest", "path_following", "gptq"):
        config = KmeansConfig(num_values=4, scope=scope, assignment=assignment, calibration_images=256)
        task = make_task(network, method=config)
        [(images, _)] = task.data.batches("train", batch_size=256, max_images=256)
        with torch.no_grad():
            wanted = task.network.eval()(images)
            Kmeans(task).fix(0)
            errors[assignment] = float((task.network(images) - wanted).square().mean())
        codebooks[assignment] = {name: set(w.unique().tolist()) for name, w in weights_of(task).items()}
    assert errors["path_following"] < 0.7 * errors["nearest"]
    assert errors["gptq"] < 0.8 * errors["path_following"]
    for assignment in ("path_following", "gptq"):
        if scope == "network":
            found, nearest = (set().union(*codebooks[each].values()) for each in (assignment, "nearest"))
            assert found == nearest
        else:
            assert all(codebooks[assignment][name] <= values for name, values in codebooks["nearest"].items())


@pytest.mark.parametrize(("assignment", "named"), [("path_following", "path following"), ("gptq", "GPTQ")])
def test_the_layers_that_cannot_be_treated_are_named(assignment, named, caplog):
    task = make_task("unusual", method=KmeansConfig(num_values=6, assignment=assignment, calibration_images=64))
    fixing = Kmeans(task).fix(0)
    assert fixing.untreated_layers
    assert len(flat(weights_of(task)).unique()) == len(fixing.codebook.values) <= 6
    assert f"kmeans: rounded to nearest, as {named} cannot treat them" in caplog.text


@pytest.mark.parametrize("assignment", ["path_following", "gptq"])
def test_a_network_that_overflows_is_refused_with_the_layer(assignment):
    task = make_task("without_batchnorm", method=KmeansConfig(assignment=assignment, calibration_images=64))
    first, second = (name.removesuffix(".weight") for name in weights_of(task) if name.endswith(".weight"))
    with torch.no_grad():
        task.network.get_submodule(first).weight.fill_(3e38)
    with pytest.raises(UserError, match=rf"kmeans: the inputs of layer {second} hold NaN or infinity"):
        Kmeans(task).fix(0)


def test_more_values_than_weights_changes_nothing():
    before, after, fixing = fixed(num_values=4096)
    assert torch.equal(flat(before), flat(after))
    assert len(fixing.codebook.values) == len(flat(before).unique())


def test_one_value_is_the_mean():
    before, after, _ = fixed(num_values=1)
    assert flat(after).unique().tolist() == pytest.approx([float(flat(before).double().mean())], rel=1e-6)


@pytest.mark.parametrize("scope", ["network", "tensor"])
def test_values_of_bounded_order(scope):
    before, after, fixing = fixed(num_values=12, max_order=2, scope=scope)
    metrics = measure_codebook(fixing.codebook)
    assert metrics.max_order == 2
    assert metrics.unique_values <= 12 * (1 if scope == "network" else len(before))
    if scope == "network":
        values = flat(after).unique()
        assert torch.equal(flat(after), values[(flat(before)[:, None] - values).abs().argmin(dim=1)])


def test_centres_that_meet_in_one_power_are_one_value():
    _, after, fixing = fixed(num_values=64, max_order=1)
    assert len(flat(after).unique()) == len(fixing.codebook.values) < 32


def test_fisher_weighting_spares_the_weights_that_count():
    """The squared errors weighted by the Fisher information fall, the plain ones rise."""
    tasks = {weighting: make_task(method=KmeansConfig(num_values=5, weighting=weighting, fisher_images=128))
             for weighting in ("plain", "fisher")}  # fmt: skip
    before = flat(weights_of(tasks["plain"]))
    w = torch.from_numpy(relative_importance(Kmeans(tasks["fisher"])._fisher()))
    for task in tasks.values():
        Kmeans(task).fix(0)
    plain, fisher = ((flat(weights_of(task)) - before) ** 2 for task in tasks.values())
    assert (w * fisher).sum() < (w * plain).sum()
    assert plain.sum() < fisher.sum()


def test_fisher_weighting_follows_the_seed_and_the_images():
    def values(seed=0, images=64):
        task = make_task(method=KmeansConfig(num_values=5, weighting="fisher", fisher_images=images), seed=seed)
        return Kmeans(task).fix(0).codebook.values.tolist()

    assert values() == values()
    assert values() != values(seed=1)
    assert values() != values(images=65)


def test_importance_is_positive_and_relative():
    fisher = np.array([0, 1e-30, 3e-30], dtype=np.float32)
    assert relative_importance(fisher) == pytest.approx([0.001, 0.751, 2.251], rel=1e-3)
    assert relative_importance(np.zeros(3, dtype=np.float32)) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_are_named(bad):
    task = make_task(method=KmeansConfig())
    next(iter(split_parameters(task.network).fixable.values())).data[0] = bad
    with pytest.raises(DivergedWeightsError, match="finite numbers, but the weights hold NaN or infinity"):
        Kmeans(task).fix(0)


# Two processes.


def work(rank: int, world_size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    task = make_task(method=KmeansConfig(num_values=7, weighting="fisher", fisher_images=101))
    task = dataclasses.replace(task, replicas=Replicas(rank, world_size))
    method = Kmeans(task)
    fisher = method._fisher()
    method.fix(0)
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps((fisher, flat(weights_of(task)))))
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_replicas_end_with_the_same_weights(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(work, args=(2, port, str(tmp_path)), nprocs=2)
    (fisher, weights), (fisher2, weights2) = (pickle.loads((tmp_path / f"{r}.pickle").read_bytes()) for r in range(2))
    assert torch.equal(weights, weights2)
    assert np.array_equal(fisher, fisher2)
    alone = Kmeans(make_task(method=KmeansConfig(weighting="fisher", fisher_images=101)))._fisher()
    assert fisher.mean() == pytest.approx(alone.mean(), rel=0.3)  # other random directions, the same images


# From the command line.


@pytest.mark.slow
def test_a_trial_from_the_space_of_this_method(tmp_path):
    settings = ["baseline.epochs=2", "method.num_values=9", "method.weighting=fisher", "method.fisher_images=50"]
    command = [sys.executable, ROOT / "launchers" / "train.py", "--space", "kmeans_digits.yaml", "--results", "results"]
    command += [part for setting in settings for part in ("--set", setting)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=280)
    (row,) = duckdb.sql(f"select * from '{tmp_path}/results/*/trials/*.parquet'").to_df().to_dict("records")
    (file,) = tmp_path.glob("results/*/models/*.safetensors")
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1)
    state = load_state(file)
    written = {value for name in split_parameters(network).fixable for value in state[name].flatten().tolist()}
    assert (row["state"], row["method"]) == ("complete", "kmeans")
    assert json.loads(row["config_json"])["method"]["weighting"] == "fisher"
    assert len(written) == row["unique_values"] == 9
