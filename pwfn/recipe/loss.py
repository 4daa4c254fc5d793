"""The loss of the float network's training: labels, smoothed or mixed, and the predictions of a teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pwfn.config import BaselineConfig
from pwfn.criterion import Distillation
from pwfn.data.contract import Preprocessing
from pwfn.training import Criterion


def make_criterion(config: BaselineConfig, teacher: nn.Module | None) -> Criterion:
    """Return the loss of a batch.

    Args:
        config: of the training.
        teacher: network to learn from, which takes the same images; None without distillation.
    """
    of_labels = _loss_of_labels(config.smoothing)
    if teacher is not None:
        return Distillation(teacher, config.distillation, config.temperature, of_labels)
    return lambda logits, images, labels: of_labels(logits, labels)


def _loss_of_labels(smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    of_labels = LabelSmoothingCrossEntropy(smoothing) if smoothing > 0 else cross_entropy
    of_shares = SoftTargetCrossEntropy()

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Take labels `(batch,)`, or shares of the classes `(batch, classes)` where images were mixed."""
        found: Tensor = of_labels(logits, labels) if labels.ndim == 1 else of_shares(logits, labels)
        return found

    return loss


class Teacher(nn.Module):
    """A network that takes images as they are normalised for another one.

    Args:
        network: the teacher's, in evaluation mode.
        preprocessing: how it wants its images.
        given: how its images are prepared: as the student wants them, with as many channels.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, given: Preprocessing) -> None:
        super().__init__()
        self.network = network
        mean, std, mean_given, std_given = (
            torch.tensor(numbers).view(-1, 1, 1)
            for numbers in (preprocessing.mean, preprocessing.std, given.mean, given.std)
        )
        self.is_same = torch.equal(mean, mean_given) and torch.equal(std, std_given)
        self.register_buffer("factor", std_given / std)
        self.register_buffer("shift", (mean_given - mean) / std)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images `(n, channels, h, w)`, normalised for the student, to the teacher's class scores."""
        scores: Tensor = self.network(images if self.is_same else images * self.factor + self.shift)
        return scores
