"""The float network from which every trial of a study starts: loaded or trained once, then kept with the results."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from pwfn.config import DataConfig, TrialConfig
from pwfn.descent import Descent
from pwfn.parameters import FlatParameters
from pwfn.seeds import derive_seed
from pwfn.task import Task
from pwfn.training import Accuracy, Learner

log = logging.getLogger(__name__)

MAX_NAME = 100
"""Characters of a model's name in a file's."""


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
        """The accuracies, as they are written to a file beside the weights."""
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


LATER_FIELDS = {"kwargs": {}, "ema": False, "new_head": False, "fuse": False}
"""Fields of `ModelConfig` that came later, with what they were before: left out where that is so, older keys hold."""

OF_THE_MACHINE = ("loader_workers", "loader_timeout", "cache")
"""Fields of `DataConfig` that change no image: they count as if they had their defaults."""


def baseline_key(config: TrialConfig) -> str:
    """Name the float network that a trial starts from: equal for trials that differ only in how they compress it."""
    without = {"equalize", "random"}  # one comes after it, the other only permits it
    without |= {name for name, before in LATER_FIELDS.items() if getattr(config.model, name) == before}
    data = config.data.model_copy(update={name: DataConfig.model_fields[name].default for name in OF_THE_MACHINE})
    digest = derive_seed(
        config.model.model_dump_json(exclude=without), data.model_dump_json(), config.baseline.model_dump_json()
    )
    return f"{file_name(config.model.name)}-{digest:016x}"


def file_name(name: str) -> str:
    """Make a name of a model (`hf-hub:timm/resnet18`, `local-dir:/my/net`) part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:MAX_NAME].strip("_")


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
