"""Two and three workers agree, to the last bit, after every round; and where they do not, that is noticed."""

import pickle
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import pwfn.trial.run
from pwfn.config import (
    BaselineConfig,
    DataConfig,
    EvaluationConfig,
    KmeansConfig,
    ModelConfig,
    PwfnConfig,
    QatConfig,
    TrainingConfig,
    TrialConfig,
    WfnConfig,
)
from pwfn.errors import MachineError
from pwfn.methods import run_rounds
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.trial.decision import Decision
from pwfn.trial.rows import Trial

METHODS = {
    "pwfn": PwfnConfig(fractions=(0.5, 1.0), b=5, codebook="free"),
    "live": PwfnConfig(fractions=(0.5, 1.0), b=5, fixed_weights="live"),
    "wfn": WfnConfig(fractions=(0.5, 1.0), delta=0.1),
    "qat": QatConfig(stages=(8, 4), stage_rounds=(1,), fisher_images=12),
    "kmeans": KmeansConfig(weighting="fisher", fisher_images=12),
}


def trial(method, name: str) -> Trial:
    config = TrialConfig(
        model=ModelConfig(name="digits_cnn"),
        data=DataConfig(name="digits", train_images=96, validation_images=50, test_images=50),
        training=TrainingConfig(batch_size=48, rest_epochs=1, start_fraction=1.0, settle_epochs=1, lr=0.02),
        evaluation=EvaluationConfig(batch_size=50, recalibration_images=96),
        baseline=BaselineConfig(epochs=1, batch_size=48, lr=0.05, allow_chance=True),
        method=method,
    )
    return Trial(name, 0, "s", config)


def work(rank: int, world_size: int, port: int, folder: str, names: tuple[str, ...], disturbed: bool) -> None:
    """Run every method's trial as one of the workers; write what this one held after each round."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    replicas, held = Replicas(rank, world_size), {}
    cases = {name: METHODS[name] for name in names}

    def watched(method, state):
        for record in run_rounds(method, state):
            if disturbed and rank == world_size - 1 and record.round == 0:  # one bit of one weight of one worker
                method.weights[5] = torch.nextafter(method.weights[5], torch.tensor(9.0))
            codebook = (record.fixing.codebook.values.tobytes(), record.fixing.codebook.counts.tobytes())
            state = {name: tensor.numpy().tobytes() for name, tensor in record.state().items()}
            network = {name: tensor.numpy().tobytes() for name, tensor in method.task.network.state_dict().items()}
            held.setdefault(case, []).append((codebook, state, network))
            yield record

    pwfn.trial.run.run_rounds = watched
    for case, method in cases.items():
        try:
            pwfn.trial.run.run_trial(
                trial(method, case), ResultsStore(folder, "s"), device=torch.device("cpu"), replicas=replicas,
                on_round=lambda row, words: Decision.CONTINUE,
            )  # fmt: skip
        except MachineError as error:
            held[case].append((error.failure_class, str(error)))
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(held))
    dist.destroy_process_group()


def run(world_size: int, folder: Path, names: tuple[str, ...], *, disturbed: bool = False) -> list[dict]:
    ResultsStore(str(folder), "s").create()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (world_size, port, str(folder), names, disturbed)
    mp.start_processes(work, arguments, nprocs=world_size, start_method="fork")  # spares the imports
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(world_size)]


@pytest.mark.parametrize(
    ("world_size", "names"), [pytest.param(2, ("pwfn", "qat"), marks=pytest.mark.slow), (3, tuple(METHODS))]
)
def test_workers_agree_on_codebook_fixed_set_and_weights_after_every_round(world_size, names, tmp_path):
    first, *others = run(world_size, tmp_path, names)
    assert {case: len(rounds) for case, rounds in first.items()} == {
        name: 1 if name == "kmeans" else 2 for name in names
    }
    assert {"fixed", "values"} <= set(first["pwfn"][0][1])
    assert all(other == first for other in others)
    states = {row["trial_id"]: row["state"] for row in ResultsStore(str(tmp_path), "s").read_trials()}
    assert states.pop("qat+0", "complete") == "complete"
    assert set(states.values()) == {"complete"}


def test_workers_that_come_apart_by_one_bit_all_end_and_name_it(tmp_path):
    for held in run(3, tmp_path, ("wfn",), disturbed=True):
        *_, (failure_class, message) = held["wfn"]
        assert failure_class == "replicas"
        assert "no longer agree after round 1 on: " in message
        assert "method's values" in message
    assert ResultsStore(str(tmp_path), "s").read_trial("wfn") is None
