"""Straight-through training of one shared codebook, in stages with fewer and fewer values, each with its own result."""

from __future__ import annotations

import logging
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from pwfn.codebook import Codebook, FloatArray
from pwfn.config import QatConfig
from pwfn.descent import Descent
from pwfn.methods.gpfq.network import assign_layerwise_
from pwfn.methods.kmeans.method import finite_array, relative_importance
from pwfn.methods.qat.learner import SettlingLearner, StraightThroughLearner
from pwfn.methods.qat.weights import SharedWeights
from pwfn.methods.rounds import Fixing, Method, State
from pwfn.parameters import buffers_of, copied, restore_buffers_, under
from pwfn.task import Task, epochs_and_steps

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """The place of a round in the training."""

    stage: int
    """Number of the round's stage; the first is 0."""
    num_steps_before: int
    """Training steps of this stage before the round."""
    num_steps: int
    """Training steps of the whole stage."""
    is_first: bool
    """Whether the round is the first of its stage."""
    is_last: bool
    """Whether the round is the last of its stage."""


class Qat(Method):
    """Straight-through training of the codebook that all weights of a task's network share.

    During a stage no weight is fixed: in each step the network sees the value that is then nearest to each latent
    weight (or, with `rate_strength`, the value of least cost). At the end of a stage the network with these values is a
    result. The next stage goes on from the latent weights. A round is a part of a stage, after which the network is
    measured with its values; the optimiser and its schedule continue through all rounds of a stage.
    """

    def __init__(self, task: Task) -> None:
        assert isinstance(task.config.method, QatConfig)
        self.config = task.config.method
        super().__init__(task, (1.0,) * sum(self.config.rounds_of_stages))
        self.weights = SharedWeights(task.parameter_sets, self.config)
        self.descent: Descent | None = None
        """Optimiser and schedule of the present stage; None before the first."""

    def place(self, index: int) -> Place:
        """Find the place of round `index` in the training."""
        rounds = self.config.rounds_of_stages
        ends = list(accumulate(rounds))
        stage = next(stage for stage, end in enumerate(ends) if index < end)
        begin = ends[stage] - rounds[stage]
        steps = [self._num_steps(each) for each in range(begin, ends[stage])]
        return Place(stage, sum(steps[: index - begin]), sum(steps), index == begin, index == ends[stage] - 1)

    def stage(self, index: int) -> int:
        """Return the number of the stage that round `index` belongs to; both count from 0."""
        return self.place(index).stage

    def is_whole(self, index: int) -> bool:
        """Whether a stage ends with round `index`."""
        return self.place(index).is_last

    def _num_steps(self, index: int) -> int:
        num_epochs, num_steps = epochs_and_steps(
            self.task.config.training, index, self.task.num_steps(self.task.config.training)
        )
        return num_epochs * num_steps

    def train(self, index: int) -> float | None:
        """Train the steps of one round; the first round of a stage first chooses new values."""
        task, place = self.task, self.place(index)
        training = task.config.training
        if place.is_first:
            self._start_stage_(self.config.sizes[place.stage])
            self.descent = self._descent(place)
        assert self.descent is not None
        gradual_steps = round(self.config.gradual_start * place.num_steps) if place.stage == 0 else 0
        learner = StraightThroughLearner(
            task.network,
            self.weights,
            self.descent,
            num_steps=place.num_steps,
            gradual_steps=gradual_steps,
            num_steps_done=place.num_steps_before,
        )
        num_epochs, num_steps = epochs_and_steps(training, index, task.num_steps(training))
        labels = [f"round {index + 1} epoch {epoch + 1}" for epoch in range(num_epochs)]
        losses = list(task.train_epochs(learner, labels, num_steps=num_steps, batch_size=training.batch_size))
        self.weights.assign_(learner.share_shown)
        return float(np.mean(losses)) if losses else None

    def _start_stage_(self, num_values: int) -> None:
        """Choose new values for the weights, and the latent weights that they start from."""
        start_stage_(self.task, self.weights, num_values, self._importance())

    def _importance(self) -> FloatArray | None:
        """Importance of each weight to the present network, `(N,)`; None: all weights count alike."""
        finite_array("the weights", self.weights.latent)
        if self.config.weighting == "plain":
            return None
        fisher = self.weights.flats[0].arranged(self.task.fisher(self.config.fisher_images))
        return relative_importance(finite_array("the Fisher information", fisher))

    def _descent(self, place: Place) -> Descent:
        """Make the optimiser and the schedule of a stage."""
        training, replicas = self.task.config.training, self.task.replicas
        lr = training.lr * self.config.lr_ratios[place.stage]
        of_stage = training.model_copy(update={"lr": lr})
        return self.weights.descent(of_stage, num_steps=place.num_steps, replicas=replicas)

    def fix(self, index: int) -> Fixing:
        """Give the network the value of every weight and describe the values; warn if a stage ends with too few."""
        self.weights.assign_()
        fixing = self._fixing()
        place = self.place(index)
        found, wanted = len(fixing.codebook.values), self.config.sizes[place.stage]
        if place.is_last and found < wanted:
            log.warning(
                "qat: stage %d of %d was to have %d values and ends with %d%s",
                place.stage + 1,
                len(self.config.sizes),
                wanted,
                found,
                self._why_fewer(),
            )
        return fixing

    def _why_fewer(self) -> str:
        if self.config.rate_strength == 0:
            return ""
        strength = f"method.rate_strength={self.config.rate_strength:g}"
        return f": {strength} leaves the others empty; use a smaller one to keep them"

    def _fixing(self) -> Fixing:
        finite_array("the weights", self.weights.shown)
        return Fixing(num_fixed=self.weights.num_weights, codebook=Codebook.of(self.weights.shown))

    def settle(self, fixing: Fixing) -> Fixing:
        """Train the values and the parameters outside the fixed set for `training.settle_epochs`.

        No weight changes from one value to another.
        """
        training, weights = self.task.config.training, self.weights
        if training.settle_epochs == 0:
            return fixing
        _, num_steps = epochs_and_steps(training, len(self.fractions), self.task.num_steps(training))
        num_steps_in_all = training.settle_epochs * num_steps
        descent = weights.descent(training, num_steps=num_steps_in_all, replicas=self.task.replicas, hold_weights=True)
        learner = SettlingLearner(self.task.network, weights, descent)
        labels = [f"settling epoch {epoch + 1}" for epoch in range(training.settle_epochs)]
        list(self.task.train_epochs(learner, labels, num_steps=num_steps, batch_size=training.batch_size))
        return self._fixing()

    def state(self) -> State:
        """Return copies, on the CPU, of weights, values, optimiser, schedule and BatchNorm's buffers."""
        descent = {} if self.descent is None else self.descent.state()
        return {
            **copied(buffers_of(self.task.network)),
            **{f"weights.{name}": tensor for name, tensor in self.weights.state().items()},
            **{f"descent.{name}": tensor for name, tensor in descent.items()},
        }

    def load_state(self, state: State) -> None:
        """Continue from what `state` returned."""
        self.weights.load_state(under("weights.", state))
        restore_buffers_(self.task.network, state)
        self.descent = self._descent(self.place(int(state["round"])))
        self.descent.load_state(under("descent.", state))


def start_stage_(task: Task, weights: SharedWeights, num_values: int, importance: FloatArray | None) -> None:
    """Choose the values of a stage; unless `stage_start` is latent, also the value that each weight starts from.

    Args:
        task: whose network the weights belong to; `stage_start` quantises it as it is.
        weights: the latent weights and the codebook.
        num_values: largest number of values.
        importance: of each weight, `(N,)`; None: all weights count alike.

    Raises:
        UserError: a layer does not run for all calibration images.
    """
    weights.start_stage_(num_values, importance)
    algorithm = weights.config.stage_start
    if algorithm != "latent":
        num_images = weights.config.calibration_images
        assign_layerwise_(task, lambda _: weights.codebook, algorithm, calibration_images=num_images)
        weights.start_from_shown_()
