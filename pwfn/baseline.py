"""The float network from which every trial of a study starts: loaded or trained once, then stored with the results."""

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
"""Largest number of characters of a model's name in the name of a file."""


@dataclass(frozen=True)
class Baseline:
    """The weights and accuracies of a float network."""

    state: Mapping[str, Tensor]
    """Its state dict."""
    validation: Accuracy
    """Accuracy on the validation images."""
    test: Accuracy
    """Accuracy on the test images."""

    def to_bytes(self) -> bytes:
        """Return the content of a safetensors file with the weights."""
        content: bytes = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.state.items()})
        return content

    @property
    def card(self) -> dict[str, float]:
        """The accuracies by name, as they are stored in a file beside the weights."""
        return {
            "val_top1": self.validation.top1,
            "val_top5": self.validation.top5,
            "test_top1": self.test.top1,
            "test_top5": self.test.top5,
        }

    @classmethod
    def from_bytes(cls, weights: bytes, card: Mapping[str, Any]) -> Baseline:
        """Rebuild a baseline from what `to_bytes` and `card` gave."""
        validation = Accuracy(card["val_top1"], card["val_top5"])
        return cls(load(weights), validation, Accuracy(card["test_top1"], card["test_top5"]))


LATER_FIELDS = {"kwargs": {}, "ema": False, "new_head": False, "fuse": False}
"""Fields that were added to `ModelConfig` later, with the values that stand for the time before. A field with this
value does not enter the key, so that the keys of older studies stay valid."""

OF_THE_MACHINE = ("loader_workers", "loader_timeout", "cache")
"""Fields of `DataConfig` that change no image: they count as if they had their defaults."""


def baseline_key(config: TrialConfig) -> str:
    """Return the key of the float network that a trial starts from.

    Trials that differ only in how they compress the network have the same key.
    """
    without = {"equalize", "random"}  # equalize changes the network later; random only permits it
    without |= {name for name, before in LATER_FIELDS.items() if getattr(config.model, name) == before}
    data = config.data.model_copy(update={name: DataConfig.model_fields[name].default for name in OF_THE_MACHINE})
    digest = derive_seed(
        config.model.model_dump_json(exclude=without), data.model_dump_json(), config.baseline.model_dump_json()
    )
    return f"{file_name(config.model.name)}-{digest:016x}"


def file_name(name: str) -> str:
    """Turn the name of a model (`hf-hub:timm/resnet18`, `local-dir:/my/net`) into a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:MAX_NAME].strip("_")


def make_baseline(task: Task) -> Baseline:
    """Train the task's network in place, as `config.baseline` says, and measure it.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
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
