"""The float network that every trial of a study starts from: loaded or trained once, then kept with the results."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from pwfn.config import TrialConfig
from pwfn.descent import Descent
from pwfn.parameters import FlatParameters
from pwfn.seeds import derive_seed
from pwfn.task import Task
from pwfn.training import Accuracy, Learner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Baseline:
    """A float network's weights and accuracies."""

    state: Mapping[str, Tensor]
    validation: Accuracy
    test: Accuracy

    def to_bytes(self) -> bytes:
        """Return the weights as a safetensors file."""
        content: bytes = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.state.items()})
        return content

    @property
    def card(self) -> dict[str, float]:
        """What is written beside the weights."""
        return {
            "val_top1": self.validation.top1,
            "val_top5": self.validation.top5,
            "test_top1": self.test.top1,
            "test_top5": self.test.top5,
        }

    @classmethod
    def from_bytes(cls, weights: bytes, card: Mapping[str, Any]) -> Baseline:
        """Rebuild from `to_bytes` and `card`."""
        validation = Accuracy(card["val_top1"], card["val_top5"])
        return cls(load(weights), validation, Accuracy(card["test_top1"], card["test_top5"]))


def baseline_key(config: TrialConfig) -> str:
    """Name the float network that a trial starts from: equal for trials that differ only in how they compress it."""
    model = config.model.model_dump_json(exclude={"equalize"})  # comes after it
    digest = derive_seed(model, config.data.model_dump_json(), config.baseline.model_dump_json())
    return f"{config.model.name}-{digest:016x}"


def make_baseline(task: Task) -> Baseline:
    """Train the task's network as `config.baseline` says, in place, and measure it."""
    config = task.config.baseline
    flat = FlatParameters(task.network.parameters())
    num_steps = task.num_steps(config)
    descent = Descent(flat.values, flat.gradient, config, num_steps=config.epochs * num_steps, replicas=task.replicas)
    learner = Learner(task.network, descent)
    labels = [f"baseline epoch {epoch + 1}" for epoch in range(config.epochs)]
    losses = task.train_epochs(learner, labels, num_steps=num_steps, batch_size=config.batch_size)
    for label, loss in zip(labels, losses, strict=True):
        log.info("%s/%d loss %.3f", label, config.epochs, loss)
    return Baseline(task.network.state_dict(), task.measure("validation"), task.measure("test"))
