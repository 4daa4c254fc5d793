"""A batch in parts gives the gradient of the batch, whatever learns from it."""

import pytest
import torch

from pwfn.baseline import make_baseline
from pwfn.config import (
    BaselineConfig,
    DataConfig,
    ModelConfig,
    PwfnConfig,
    QatConfig,
    TrainingConfig,
    TrialConfig,
    WfnConfig,
)
from pwfn.data import open_source
from pwfn.descent import Descent
from pwfn.methods import METHODS, run_rounds
from pwfn.models import build_network, preprocessing_of
from pwfn.replicas import Replicas
from pwfn.task import Task

DIGITS = DataConfig(name="digits", train_images=64, validation_images=20, test_images=20)
HALVES = (0.5, 1.0)
LEARNERS = {
    "float network": None,
    "posterior, shared values": PwfnConfig(fractions=HALVES, b=5, codebook="free"),
    "living": PwfnConfig(fractions=HALVES, b=5, codebook="free", fixed_weights="live"),
    "pulled": WfnConfig(fractions=HALVES, delta=0.1, regularization_ratio=2.0),
    "straight through, settling": QatConfig(num_values=8, stage_rounds=(2,), weighting="plain"),
}


def gradients(method, parts: int, monkeypatch) -> list[torch.Tensor]:
    """Gradients of all steps; each round takes one, so that no rounding adds up."""
    found = []

    def note(self, *squares):
        found.append(self.gradient.clone())
        return update(self, *squares)

    update = Descent.update
    config = TrialConfig(
        model=ModelConfig(name="digits_mlp"),
        data=DIGITS,
        training=TrainingConfig(
            lr=0.01, batch_size=24, steps_per_epoch=1, rest_epochs=1, settle_epochs=1, distillation=0.3, momentum=0.0
        ),
        baseline=BaselineConfig(epochs=1, batch_size=64),
        **({} if method is None else {"method": method}),
    )
    source = open_source(DIGITS, seed=0)
    network = build_network(config.model, num_classes=10, in_channels=1, seed=1)
    data = source.prepare(preprocessing_of(network), torch.device("cpu"))
    task = Task(network, data, config, torch.device("cpu"), Replicas(), parts)
    monkeypatch.setattr(Descent, "update", note)
    if method is None:
        make_baseline(task)
    else:
        list(run_rounds(METHODS[method.name](task.ready())))
    monkeypatch.setattr(Descent, "update", update)
    return found


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_add_up_to_its_gradient(learner, parts, monkeypatch):
    whole = gradients(LEARNERS[learner], 1, monkeypatch)
    in_parts = gradients(LEARNERS[learner], parts, monkeypatch)
    assert len(whole) == len(in_parts) > 0
    for one, other in zip(whole, in_parts, strict=True):
        assert one.any()
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5 * float(one.abs().max()))
