"""A trial killed inside its rounds, and inside the training of its float network, ends like one that was not."""

import os
import signal
import socket

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import torch
import torch.distributed as dist
from test_trial import result
from timm import create_model
from timm.models import register_model
from torch.nn.functional import dropout

from pwfn.config import (
    BaselineConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PwfnConfig,
    QatConfig,
    TrainingConfig,
    TrialConfig,
    WfnConfig,
)
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.trial.decision import Decision
from pwfn.trial.rows import Trial
from pwfn.trial.run import run_trial

METHODS = {
    "pwfn": PwfnConfig(fractions=(0.5, 1.0), b=5, codebook="free", sigma_init="fisher", fisher_images=8),
    "pwfn, alternate, live": PwfnConfig(
        fractions=(0.5, 1.0),
        b=5,
        codebook="free",
        fixed_weights="live",
        alternate=True,
        noise_epochs=1,
        fixed_sigma_first=True,
    ),
    "wfn": WfnConfig(fractions=(0.5, 1.0), delta=0.1),
    "qat": QatConfig(stages=(8, 4), stage_rounds=(2,), fisher_images=8, rate_strength=0.01, gradual_start=0.5),
}
RECIPES = {
    "wfn": {
        "opt": "lamb", "sched": "cosine", "warmup_epochs": 1, "weight_decay": 0.05, "smoothing": 0.1, "mixup": 0.2,
        "cutmix": 1.0, "aa": "rand-m5-n1", "reprob": 0.3, "augment_epochs": 1, "model_ema": True,
        "model_ema_decay": 0.9, "teacher": ModelConfig(name="digits_mlp", random=True), "distillation": 0.5,
        "precision": "bfloat16",
    },
}  # fmt: skip
"""How the float network is trained, for all of timm's options at once; the others are trained plainly."""
AT_EVERY_STEP = 1e-9
"""Minutes between two checkpoints."""


def dropping_cnn(pretrained: bool = False, **kwargs):
    """A network that draws random numbers in training, beside BatchNorm's statistics."""
    network = create_model("digits_cnn", **kwargs)
    network.register_forward_hook(lambda module, inputs, output: dropout(output, 0.2, module.training))
    return network


register_model(dropping_cnn)


def trial(method) -> Trial:
    recipe = RECIPES.get(method.name, {"lr_schedule": "cosine"})
    config = TrialConfig(
        model=ModelConfig(name="dropping_cnn"),
        data=DataConfig(
            name="digits", train_images=160, validation_images=50, test_images=50, augmentation="crop_flip"
        ),
        training=TrainingConfig(
            batch_size=32, rest_epochs=2, start_fraction=1.0, settle_epochs=1, lr=0.01, optimizer="adam",
            lr_schedule="cosine",
        ),
        evaluation=EvaluationConfig(batch_size=50, recalibration_images=64),
        baseline=BaselineConfig(epochs=2, batch_size=32, lr=0.05, allow_chance=True, **recipe),
        method=method,
    )  # fmt: skip
    return Trial("0000", 0, "s", config)


class DeadlyStore(ResultsStore):
    """Kills its process, as the kernel would, right after so many checkpoints were written."""

    def write_checkpoint(self, trial_id: str, content: bytes) -> None:
        super().write_checkpoint(trial_id, content)
        global written
        written += 1
        if written == deadly:
            os.kill(os.getpid(), signal.SIGKILL)


written, deadly = 0, -1


def start(folder, method, *, dies_after: int, num_workers: int = 1) -> int:
    """Run the trial in a process of its own, or several; return the first one's exit status, or minus its signal."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(num_workers):
        process = os.fork()
        if process == 0:
            status = 1
            try:
                work(folder, method, dies_after, Replicas(rank, num_workers), port)
                status = 0
            finally:
                os._exit(status)
        processes.append(process)
    first, *others = (os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes)
    assert all(bool(other) == bool(first) for other in others)
    return first


def work(folder, method, dies_after: int, replicas: Replicas, port: int) -> None:
    global written, deadly
    written, deadly = 0, dies_after
    torch.set_num_threads(1)
    if replicas.world_size > 1:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=replicas.rank, world_size=replicas.world_size)
    store = DeadlyStore(str(folder), "s")
    store.create()
    run_trial(
        trial(method), store, device=torch.device("cpu"), replicas=replicas,
        on_round=lambda row, words: Decision.CONTINUE, checkpoint_minutes=AT_EVERY_STEP,
    )  # fmt: skip
    if replicas.is_first:
        (folder / "written").write_text(str(written))


def assert_equal(whole, killed) -> None:
    """The trial's row, its rounds and its float network are the same in both folders."""
    one, two = (ResultsStore(str(folder), "s") for folder in (whole, killed))
    assert one.read_trial("0000")["state"] == "complete"
    assert result([one.read_trial("0000")]) == result([two.read_trial("0000")])
    assert result(one.read_rounds("0000")) == result(two.read_rounds("0000"))
    [network] = whole.glob("s/baseline/*.safetensors")
    assert network.read_bytes() == (killed / "s/baseline" / network.name).read_bytes()
    assert list(killed.glob("s/checkpoints/*")) == []


@pytest.mark.parametrize(
    "case", ["pwfn", *(pytest.param(case, marks=pytest.mark.slow) for case in METHODS if case != "pwfn")]
)
def test_a_trial_killed_again_and_again_inside_its_rounds_ends_in_the_same_row(case, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert start(whole, METHODS[case], dies_after=-1) == 0
    num_checkpoints = int((whole / "written").read_text())
    statuses = [start(killed, METHODS[case], dies_after=dies_after) for dies_after in (3, 6, 1, num_checkpoints // 4)]
    for _ in range(9):  # seven checkpoints a life: inside every epoch of every round, and where one ends
        if statuses[-1] == 0:
            break
        statuses.append(start(killed, METHODS[case], dies_after=max(7, num_checkpoints // 6)))
    assert statuses[-1] == 0
    assert statuses.count(-signal.SIGKILL) == len(statuses) - 1 >= 4
    assert ResultsStore(str(killed), "s").read_trial("0000")["retries"] == len(statuses) - 1
    assert_equal(whole, killed)


def test_of_two_workers_each_goes_on_with_what_was_its_own(tmp_path, monkeypatch):
    """Generators, noise and losses of both, gathered in one checkpoint; the first worker dies, the other then ends."""
    monkeypatch.setattr("pwfn.midway.STEPS_BETWEEN_CHECKS", 1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    method = PwfnConfig(fractions=(0.5, 1.0), b=5)
    assert start(whole, method, dies_after=-1, num_workers=2) == 0
    num_checkpoints = int((whole / "written").read_text())
    for dies_after in (4, num_checkpoints // 3, num_checkpoints // 3):
        assert start(killed, method, dies_after=dies_after, num_workers=2) == -signal.SIGKILL
    assert start(killed, method, dies_after=-1, num_workers=2) == 0
    assert_equal(whole, killed)
