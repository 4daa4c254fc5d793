"""What a method works on: a float network, its data, the trial's configuration; and the accuracies it measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from pwfn.config import OptimizationConfig, TrainingConfig, TrialConfig
from pwfn.criterion import Distillation, cross_entropy_of_labels, teacher_of
from pwfn.data import Data
from pwfn.equalization import equalize_
from pwfn.fisher import diagonal_fisher
from pwfn.parameters import ParameterSets, split_parameters
from pwfn.replicas import Replicas
from pwfn.seeds import derive_seed, generator
from pwfn.training import Accuracy, Criterion, Learner, Waiting, evaluate, recalibrate_batchnorm, train_epoch

EQUALIZED_IMAGES = 16
"""Images on which an equalised network is compared with what it was."""


@dataclass(frozen=True)
class Task:
    """One trial's network (in place: a method changes its weights), data and configuration, on one device."""

    network: nn.Module
    data: Data
    config: TrialConfig
    device: torch.device
    replicas: Replicas
    micro_batches: int = 1
    """Parts in which each batch passes through the network, where all of it does not fit in memory."""
    teacher: nn.Module | None = None
    """The float network, where training is to stay near its predictions."""
    waiting: Waiting = field(default_factory=Waiting)
    """For how long training has waited for batches."""

    @property
    def parameter_sets(self) -> ParameterSets:
        """The network's parameters, with the fixed set as the configuration has it."""
        return split_parameters(self.network, include_norm=self.config.include_norm)

    def ready(self) -> Task:
        """Get the float network ready to be compressed: equalise it, and keep a copy as teacher, where asked for."""
        if self.config.model.equalize != "none":
            [(images, _)] = self.data.batches("train", batch_size=EQUALIZED_IMAGES, max_images=EQUALIZED_IMAGES)
            equalize_(self.network, images, self.config.model.equalize)
        return replace(self, teacher=teacher_of(self.network)) if self.config.training.distillation > 0 else self

    def generator(self, *purpose: int | str) -> torch.Generator:
        """Make a generator for a purpose: another on each replica, the same after an interruption."""
        return generator(self.device, self.config.seed, *purpose, self.replicas.rank)

    def measure(self, split: str) -> Accuracy:
        """Measure the network as it stands on `train`, `validation` or `test`."""
        batches = self.batches(split, batch_size=self.config.evaluation.batch_size)
        return evaluate(self.network, batches, precision=self.config.training.precision, replicas=self.replicas)

    def batches(self, split: str, *, batch_size: int, max_images: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """This replica's share of a split, in file order and without augmentation."""
        rank, world_size = self.replicas.rank, self.replicas.world_size
        batch_size = max(1, batch_size // self.micro_batches)
        return self.data.batches(split, batch_size=batch_size, max_images=max_images, rank=rank, world_size=world_size)

    def fisher(self, num_images: int) -> Tensor:
        """Estimate how much each weight of the network as it stands matters, `(num_weights,)`, on training images."""
        batches = self.batches("train", batch_size=self.config.evaluation.batch_size, max_images=num_images)
        return diagonal_fisher(self.network, batches, generator=self.generator("fisher"), replicas=self.replicas)

    def train_epoch(self, learner: Learner, *, num_steps: int, label: str, batch_size: int) -> float:
        """Train one epoch of `num_steps` global batches, shuffled and augmented by `label`; return the mean loss."""
        # Dropout and the like draw from torch's global generator.
        torch.manual_seed(derive_seed(self.config.seed, "layers", label, self.replicas.rank))
        batches = self.data.train_batches(
            batch_size=batch_size,
            seed=derive_seed(self.config.seed, "batches", label),
            num_steps=num_steps,
            rank=self.replicas.rank,
            world_size=self.replicas.world_size,
        )
        return train_epoch(
            learner,
            self.waiting.counted(batches),
            precision=self.config.training.precision,
            replicas=self.replicas,
            label=label,
            criterion=self._criterion(),
            micro_batches=self.micro_batches,
        )

    def train_epochs(
        self, learner: Learner, labels: Iterable[str], *, num_steps: int, batch_size: int
    ) -> Iterator[float]:
        """Train an epoch of `num_steps` global batches for each label; yield the mean loss of each as it ends."""
        for label in labels:
            yield self.train_epoch(learner, num_steps=num_steps, label=label, batch_size=batch_size)

    def _criterion(self) -> Criterion:
        training = self.config.training
        if self.teacher is None:
            return cross_entropy_of_labels
        return Distillation(self.teacher, training.distillation, training.temperature)

    def num_steps(self, optimization: OptimizationConfig) -> int:
        """Steps of a whole epoch, before any limit."""
        return self.data.num_steps(optimization.batch_size)

    def recalibrate(self) -> bool:
        """Estimate BatchNorm's statistics again where the configuration asks for it; say whether that was done.

        On augmented images, as in training: the statistics of plain ones cost a ResNet-20 two points (CHANGELOG, log).
        """
        evaluation = self.config.evaluation
        if not evaluation.recalibrate_bn:
            return False
        batch_size = evaluation.batch_size
        batches = self.data.train_batches(
            batch_size=batch_size,
            seed=derive_seed(self.config.seed, "recalibration"),
            num_steps=max(1, evaluation.recalibration_images // batch_size),
            rank=self.replicas.rank,
            world_size=self.replicas.world_size,
        )
        return recalibrate_batchnorm(self.network, batches, replicas=self.replicas)


def epochs_and_steps(training: TrainingConfig, index: int, steps_per_epoch: int) -> tuple[int, int]:
    """Return how many epochs round `index` trains, and the steps of each: the first round sees a share only."""
    if training.steps_per_epoch is not None:
        steps_per_epoch = min(steps_per_epoch, training.steps_per_epoch)
    if index > 0:
        return training.rest_epochs, steps_per_epoch
    return training.start_epochs, max(1, round(training.start_fraction * steps_per_epoch))
