"""The float network from which every trial of a study starts: loaded or trained once, then stored with the results."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from safetensors.torch import load, save
from torch import Tensor, nn

from pwfn.descent import Descent
from pwfn.errors import MachineError
from pwfn.float_network import FloatProgress, Tell, nobody_is_told
from pwfn.parameters import FlatParameters
from pwfn.recipe.average import AveragingLearner
from pwfn.recipe.descent import NamedDescent
from pwfn.recipe.loss import make_criterion
from pwfn.recipe.mixing import Mixing
from pwfn.task import Manner, Task
from pwfn.training import Accuracy, Learner

log = logging.getLogger(__name__)


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


def make_baseline(task: Task, teacher: nn.Module | None = None, tell: Tell = nobody_is_told) -> Baseline:
    """Train the task's network in place, as `config.baseline` says, and measure it.

    Args:
        task: the network and its data.
        teacher: network whose predictions it learns from, for the same images; None without distillation.
        tell: is called after each training step.

    Raises:
        UserError: timm refuses an option.
        NonFiniteLossError: the loss became NaN or infinite.
        MachineError: several workers no longer have the same weights.
    """
    config = task.config.baseline
    flat = FlatParameters(task.network.parameters())
    steps = task.num_steps(config)
    descent, num_epochs = _make_descent(task, flat, steps)
    learner = Learner(task.network, descent, [flat])
    if config.model_ema:
        decay, warmup = config.model_ema_decay, config.model_ema_warmup
        learner = AveragingLearner(task.network, descent, [flat], decay=decay, warmup=warmup)
    labels = [f"baseline epoch {epoch + 1}" for epoch in range(num_epochs)]
    num_augmented = num_epochs if config.augment_epochs is None else config.augment_epochs
    loss: float | None = None

    def after_step(label: str, num_steps: int) -> None:
        tell(FloatProgress(task.config.model.name, labels.index(label) + num_steps / steps, num_epochs, loss))

    plain = Manner(make_criterion(config, teacher), config.precision or task.config.training.precision,
                   after_step=after_step)  # fmt: skip
    mix = Mixing(config, task.data.num_classes) if config.mixes or config.reprob > 0 else None
    for part, manner in (
        (labels[:num_augmented], replace(plain, auto_augment=config.aa, mix=mix)),
        (labels[num_augmented:], plain),
    ):
        epochs = task.train_epochs(learner, part, num_steps=steps, batch_size=config.batch_size, manner=manner)
        for label, loss in zip(part, epochs, strict=True):
            log.info("%s/%d loss %.3f", label, num_epochs, loss)
            _check_agreement(task, flat, label)
    if isinstance(learner, AveragingLearner):
        task.replicas.average_buffers_(learner.average)
        task.network.load_state_dict(learner.average.state_dict())
    return Baseline(task.network.state_dict(), task.measure("validation"), task.measure("test"))


def _make_descent(task: Task, flat: FlatParameters, steps: int) -> tuple[Descent, int]:
    """Make the optimiser and its schedule; return it and the number of epochs to train."""
    config, replicas = task.config.baseline, task.replicas
    if config.opt is None or config.epochs == 0:
        num_steps = config.epochs * steps
        return Descent(flat.values, flat.gradient, config, num_steps=num_steps, replicas=replicas), config.epochs
    descent = NamedDescent(task.network, flat, config, steps_per_epoch=steps, replicas=replicas)
    return descent, descent.num_epochs


def _check_agreement(task: Task, flat: FlatParameters, label: str) -> None:
    if task.replicas.differing({"weights": flat.values}, task.device):
        raise MachineError(f"the workers no longer have the same weights after {label}", "replicas")
