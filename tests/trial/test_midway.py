"""A trial killed inside its rounds, and inside the training of its float network, ends like one that was not."""

import os
import signal

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import torch
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
        fractions=(0.5, 1.0), b=5, codebook="free", fixed_weights="live", alternate=True
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


def start(folder, method, *, dies_after: int) -> int:
    """Run the trial in a process of its own; return its exit status, or the negative number of its signal."""
    process = os.fork()
    if process == 0:
        global written, deadly
        written, deadly, status = 0, dies_after, 1
        try:
            torch.set_num_threads(1)
            store = DeadlyStore(str(folder), "s")
            store.create()
            run_trial(
                trial(method), store, device=torch.device("cpu"), replicas=Replicas(),
                on_round=lambda row, words: Decision.CONTINUE, checkpoint_minutes=AT_EVERY_STEP,
            )  # fmt: skip
            (folder / "written").write_text(str(written))
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("case", METHODS)
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
    one, two = (ResultsStore(str(folder), "s") for folder in (whole, killed))
    assert one.read_trial("0000")["state"] == "complete"
    assert result([one.read_trial("0000")]) == result([two.read_trial("0000")])
    assert result(one.read_rounds("0000")) == result(two.read_rounds("0000"))
    assert two.read_trial("0000")["retries"] == len(statuses) - 1
    [networks] = [sorted(folder.glob("s/baseline/*.safetensors")) for folder in (whole,)]
    assert networks[0].read_bytes() == (killed / "s/baseline" / networks[0].name).read_bytes()
    assert list(killed.glob("s/checkpoints/*")) == []
