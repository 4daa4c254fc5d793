"""The losses of training: cross-entropy of the labels, and its mix with a divergence from the float network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax


def cross_entropy_of_labels(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, a scalar, of logits `(batch, classes)` and labels `(batch,)`; `images` is not used."""
    return cross_entropy(logits, labels)


@dataclass(frozen=True)
class Distillation:
    """Cross-entropy of the labels plus divergence from a teacher's predictions (Hinton et al. 2015, arXiv 1503.02531).

    A network that already fits its training images learns little from their labels. The float network's probabilities
    of all classes, image by image, tell it how to stay close to the float network.
    """

    teacher: nn.Module
    """The float network or another one, in evaluation mode."""
    weight: float
    """Weight of the divergence, in [0, 1]; the loss on the labels has the rest."""
    temperature: float
    """T: both predictions are softmax(logits / T). The divergence is multiplied by T^2, so that the size of its
    gradient does not depend much on T."""
    of_labels: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    """Loss of logits `(batch, classes)` and labels `(batch,)`, or shares of the classes `(batch, classes)`."""

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of logits `(batch, classes)` for images and their labels."""
        with torch.no_grad():
            wanted = log_softmax(self.teacher(images).float() / self.temperature, dim=1)
        given = log_softmax(logits.float() / self.temperature, dim=1)
        divergence = self.temperature**2 * kl_div(given, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * self.of_labels(logits, labels) + self.weight * divergence


def teacher_of(network: nn.Module) -> nn.Module:
    """Return a copy of a network in its present state, in evaluation mode and without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)
