"""Two data-parallel processes against one, over a real gloo group on this machine."""

import os
import pickle
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pwfn.config import DataConfig, ModelConfig, PwfnConfig, QatConfig, TrainingConfig, TrialConfig, WfnConfig
from pwfn.data import open_source
from pwfn.methods import METHODS, run_rounds
from pwfn.methods.pwfn.method import Pwfn
from pwfn.methods.qat.method import Qat
from pwfn.models import build_network, preprocessing_of
from pwfn.replicas import Replicas
from pwfn.task import Task

BACKEND = os.environ.get("PWFN_TEST_BACKEND", "gloo")
"""gloo on CPUs, or nccl on two GPUs (`tests/benchmarks/first_gpu.sh`)."""
DIGITS = DataConfig(name="digits", augmentation="none", train_images=256)


CASES = {
    "no noise": PwfnConfig(fractions=(0.4, 1.0), b=5, noise=False, regularization_strength=0.01),
    "noise": PwfnConfig(fractions=(0.4, 1.0), b=5, noise=True, regularization_strength=0.01),
    "live": PwfnConfig(fractions=(0.4, 1.0), b=5, fixed_weights="live"),
    "wfn": WfnConfig(fractions=(0.4, 1.0), delta=0.05),
    "qat": QatConfig(stages=(9, 4), stage_rounds=(1,), weighting="plain"),
    "qat, rate": QatConfig(stages=(9, 4), stage_rounds=(2, 1), rate_strength=0.02, fisher_images=64),
}


def run(rank: int, world_size: int, case: str):
    config = TrialConfig(
        model=ModelConfig(name="digits_mlp"),
        data=DIGITS,
        training=TrainingConfig(lr=0.02, batch_size=64, start_fraction=1.0, rest_epochs=2),
        method=CASES[case],
    )
    source = open_source(DIGITS, seed=0)
    network = build_network(config.model, num_classes=10, in_channels=1, seed=1)
    device = torch.device("cpu" if BACKEND == "gloo" else f"cuda:{rank}")
    data = source.prepare(preprocessing_of(network), device)
    task = Task(network.to(device), data, config, device, Replicas(rank, world_size))
    method = METHODS[config.method.name](task)
    noises = _noted_noises(method.posterior) if isinstance(method, Pwfn) else []
    steps = []
    for record in run_rounds(method):
        values = trained(method)
        steps.append((values.cpu().clone(), record.after, record.test_before, record.train_loss))
    return steps, noises, method.task.parameter_sets.num_parameters


def trained(method):
    """Everything that a method trains, in one buffer."""
    match method:
        case Pwfn():
            return method.posterior.values
        case Qat():
            return method.weights.values
    return method.values


def _noted_noises(posterior):
    """A list to which each draw's noise will be added: it is gone after the step."""
    noises, draw = [], posterior.draw_

    def draw_and_note(generator):
        draw(generator)
        noises.append(posterior.eps.cpu().clone())

    posterior.draw_ = draw_and_note
    return noises


def work(rank: int, world_size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    if BACKEND == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(BACKEND, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    all_reduce, results = dist.all_reduce, {}
    for case in CASES:
        sizes: list[int] = []
        dist.all_reduce = lambda tensor, *args, sizes=sizes, **options: (
            sizes.append(tensor.numel()), all_reduce(tensor, *args, **options)
        )[1]  # fmt: skip
        results[case] = (*run(rank, world_size, case), sizes)
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.start_processes(work, (2, port, str(folder)), nprocs=2, start_method="fork")  # spares the imports
    return [pickle.loads(Path(folder, f"{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.mark.parametrize("case", ["no noise", "noise", "wfn"])
def test_two_workers_give_the_result_of_one(replicas, case):
    alone, *_ = run(0, 1, case)
    together, *_ = replicas[0][case]
    for (values, after, test_before, loss), (other, after2, test_before2, loss2) in zip(alone, together, strict=True):
        torch.testing.assert_close(values, other, rtol=1e-3, atol=1e-5)
        assert (after, test_before) == (after2, test_before2)
        assert loss == pytest.approx(loss2, rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_all_workers_hold_the_same_values_after_every_round(replicas, case):
    (first, *_), (second, *_) = replicas[0][case], replicas[1][case]
    for (values, *measured), (other, *measured2) in zip(first, second, strict=True):
        assert torch.equal(values, other)
        assert measured == measured2


def test_all_workers_draw_the_noise_of_one(replicas):
    first, second, alone = replicas[0]["noise"][1], replicas[1]["noise"][1], run(0, 1, "noise")[1]
    assert len(first) == len(second) == len(alone) > 0
    assert all(map(torch.equal, first, alone))
    assert all(map(torch.equal, second, alone))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("case", ["noise", "wfn", "qat"])
def test_a_step_exchanges_one_number_for_each_parameter(replicas, case):
    """Not also one for each sigma; with qat one for each of its values, too."""
    _, _, num_parameters, sizes = replicas[0][case]
    num_values = CASES[case].sizes[0] if case == "qat" else 0
    num_steps = (1 + 2) * (256 // 64)  # the epochs of the two rounds, or stages
    assert max(sizes) == num_parameters + num_values
    assert sum(size >= num_parameters for size in sizes) == num_steps
