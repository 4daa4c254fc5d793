"""A task: the network, the data and the configuration that a method works with, and functions to train and measure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from pwfn.config import OptimizationConfig, TrainingConfig, TrialConfig
from pwfn.criterion import Distillation, cross_entropy_of_labels, teacher_of
from pwfn.data import Data
from pwfn.equalization import equalize_
from pwfn.fisher import diagonal_fisher
from pwfn.midway import Midway
from pwfn.parameters import ParameterSets, split_parameters
from pwfn.replicas import Replicas
from pwfn.seeds import derive_seed, generator
from pwfn.training import Accuracy, Batches, Criterion, Learner, Waiting, evaluate, recalibrate_batchnorm, train_epoch

log = logging.getLogger(__name__)

EQUALIZED_IMAGES = 16
"""Number of images on which the outputs before and after equalisation are compared."""


@dataclass(frozen=True)
class Manner:
    """How the batches of an epoch become losses."""

    criterion: Criterion = cross_entropy_of_labels
    """Loss of a batch."""
    precision: str = "float32"
    """Of the network's computations; see `TrainingConfig.precision`."""
    cuda_graph: bool = False
    """Whether a GPU's steps are launched as a whole; see `TrainingConfig.cuda_graph`."""
    auto_augment: str | None = None
    """Augmentation of each image, beside that of the data; see `BaselineConfig.aa`."""
    mix: Callable[[Batches, int, int], Batches] | None = None
    """Takes the batches of an epoch, its seed on this replica and the place of the first batch; changes them."""
    after_step: Callable[[str, int], None] = lambda label, num_steps: None
    """Is told the epoch's label and how many of its steps are done."""


@dataclass(frozen=True)
class Task:
    """The network, data and configuration of one trial, on one device. A method changes the network in place."""

    network: nn.Module
    data: Data
    config: TrialConfig
    device: torch.device
    replicas: Replicas
    micro_batches: int = 1
    """Number of parts in which a batch passes through the network; more than 1 if a batch does not fit into memory."""
    teacher: nn.Module | None = None
    """Copy of the float network for `training.distillation`; None without distillation."""
    waiting: Waiting = field(default_factory=Waiting)
    """Counts the seconds that training waits for batches."""
    midway: Midway = field(default_factory=Midway)
    """Keeps where training stands inside a round; by default nothing is kept."""

    @property
    def parameter_sets(self) -> ParameterSets:
        """The network's parameters, split into the fixed set and the rest as the configuration says."""
        return split_parameters(self.network, include_norm=self.config.include_norm)

    def ready(self) -> Task:
        """Prepare the float network for compression: equalise it and keep a copy as teacher, if so configured.

        Raises:
            UserError: the network cannot be equalised (`equalize_`).
        """
        if self.config.model.equalize != "none":
            num_images = max(1, EQUALIZED_IMAGES // self.micro_batches)
            [(images, _)] = self.data.batches("train", batch_size=num_images, max_images=num_images)
            for line in equalize_(self.network, images, self.config.model.equalize):
                log.info("model.equalize leaves %s", line)
        return replace(self, teacher=teacher_of(self.network)) if self.config.training.distillation > 0 else self

    def generator(self, *purpose: int | str) -> torch.Generator:
        """Make a generator for a purpose; its seed differs between replicas, and is the same after an interruption."""
        return generator(self.device, self.config.seed, *purpose, self.replicas.rank)

    def common_generator(self, *purpose: int | str) -> torch.Generator:
        """Make a generator for a purpose; it gives all replicas the same numbers, those of a replica alone."""
        return generator(self.device, self.config.seed, *purpose, 0)

    def measure(self, split: str) -> Accuracy:
        """Measure the accuracy of the network in its present state on `train`, `validation` or `test`."""
        batches = self.batches(split, batch_size=self.config.evaluation.batch_size)
        return evaluate(self.network, batches, precision=self.config.training.precision, replicas=self.replicas)

    def count_broken(self) -> int:
        """Count the images that are left out because they cannot be read, of those that any replica has drawn so far.

        All replicas must call it together.
        """
        found = self.data.broken.to(self.device, torch.int32)
        return int((self.replicas.sum_(found) > 0).sum())

    def batches(self, split: str, *, batch_size: int, max_images: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Return batches of this replica's share of a split, in file order and without augmentation.

        `batch_size` is for one replica, before micro-batches divide it; `max_images` is for all replicas.
        """
        rank, world_size = self.replicas.rank, self.replicas.world_size
        batch_size = max(1, batch_size // self.micro_batches)
        return self.data.batches(split, batch_size=batch_size, max_images=max_images, rank=rank, world_size=world_size)

    def fisher(self, num_images: int) -> Tensor:
        """Estimate the Fisher information of each weight of the network on training images, `(num_weights,)`."""
        batches = self.batches("train", batch_size=self.config.evaluation.batch_size, max_images=num_images)
        return diagonal_fisher(self.network, batches, generator=self.generator("fisher"), replicas=self.replicas)

    def train_epoch(
        self, learner: Learner, *, num_steps: int, label: str, batch_size: int, manner: Manner | None = None
    ) -> float:
        """Train one epoch and return the mean loss; one in which an earlier process was lost goes on where it was kept.

        Args:
            learner: the network and the way in which it is trained.
            num_steps: number of batches of the epoch.
            label: names the epoch in messages; seeds its order of images, augmentation and dropout.
            batch_size: images per step, over all replicas together.
            manner: how it is trained; None: as `training` says.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """
        manner = manner or self._manner()
        # Dropout draws from torch's global generator.
        torch.manual_seed(derive_seed(self.config.seed, "layers", label, self.replicas.rank))
        losses = self.midway.go_on(label, learner, self.device)
        batches: Batches = self.data.train_batches(
            batch_size=batch_size,
            seed=derive_seed(self.config.seed, "batches", label),
            num_steps=num_steps,
            first_step=len(losses),
            rank=self.replicas.rank,
            world_size=self.replicas.world_size,
            auto_augment=manner.auto_augment,
        )
        if manner.mix is not None:
            seed = derive_seed(self.config.seed, "mixing", label, self.replicas.rank)
            batches = manner.mix(batches, seed, len(losses))

        def after_step(losses: list[Tensor]) -> None:
            self.midway.after_step(label, learner, losses)
            manner.after_step(label, len(losses))

        return train_epoch(
            learner,
            self.waiting.counted(batches),
            precision=manner.precision,
            replicas=self.replicas,
            label=label,
            criterion=manner.criterion,
            micro_batches=self.micro_batches,
            losses=losses,
            after_step=after_step,
            cuda_graph=manner.cuda_graph,
        )

    def train_epochs(
        self,
        learner: Learner,
        labels: Sequence[str],
        *,
        num_steps: int,
        batch_size: int,
        manner: Manner | None = None,
    ) -> Iterator[float]:
        """Train an epoch for each label, as `train_epoch` does; yield the mean loss of each when it ends.

        What an earlier process has kept of them is not trained again.
        """
        for label in labels:
            loss = self.midway.loss(label)
            if loss is None:
                loss = self.train_epoch(learner, num_steps=num_steps, label=label, batch_size=batch_size, manner=manner)
                self.midway.end_epoch(label, loss)
            yield loss
        if labels:
            self.midway.end_run(labels[-1], learner)

    def _manner(self) -> Manner:
        training = self.config.training
        if self.teacher is None:
            return Manner(precision=training.precision, cuda_graph=training.cuda_graph)
        criterion = Distillation(self.teacher, training.distillation, training.temperature)
        return Manner(criterion, training.precision, training.cuda_graph)

    def num_steps(self, optimization: OptimizationConfig) -> int:
        """Number of training steps in an epoch over all images; `steps_per_epoch` is not considered."""
        return self.data.num_steps(optimization.batch_size)

    def recalibrate(self) -> bool:
        """Estimate BatchNorm's statistics again if the configuration says so; return whether that was done.

        The images are augmented as in training: without augmentation a ResNet-20 lost two points of accuracy
        (docs/log.md, "On which images should BatchNorm be recalibrated?").
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
        return recalibrate_batchnorm(self.network, batches, replicas=self.replicas, micro_batches=self.micro_batches)


def epochs_and_steps(training: TrainingConfig, index: int, steps_per_epoch: int) -> tuple[int, int]:
    """Return the number of epochs of round `index` and of steps in each of them.

    `steps_per_epoch` is the number of steps in an epoch over all images; the first round uses only a share of them.
    """
    if training.steps_per_epoch is not None:
        steps_per_epoch = min(steps_per_epoch, training.steps_per_epoch)
    if index > 0:
        return training.rest_epochs, steps_per_epoch
    return training.start_epochs, max(1, round(training.start_fraction * steps_per_epoch))
