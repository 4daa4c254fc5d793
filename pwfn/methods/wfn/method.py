"""WFN: training with a pull towards the fixed values, in turn with fixing more and more weights (WFN, algorithm 1)."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from pwfn.codebook import Codebook
from pwfn.config import WfnConfig
from pwfn.descent import Descent
from pwfn.methods.rounds import Fixing, Method, State
from pwfn.methods.wfn import Pull, assign
from pwfn.methods.wfn.pull import add_pull_, pull_
from pwfn.parameters import FlatParameters, buffers_of, copied, restore_buffers_
from pwfn.task import Task, epochs_and_steps
from pwfn.training import Learner


class Wfn(Method):
    """Weight fixing of a task's network by relative distances.

    `values` is float32 `(N + M,)`: the N weights of the fixed set, then the M other parameters. `gradient` has the same
    layout. `weights` is the view of the N weights. `fixed` is bool `(N,)`: a weight that was fixed keeps its value.
    """

    def __init__(self, task: Task) -> None:
        assert isinstance(task.config.method, WfnConfig)
        self.config = task.config.method
        super().__init__(task, self.config.fractions)
        sets = task.parameter_sets
        self.flat = FlatParameters([*sets.fixable.values(), *sets.rest.values()])
        self.values, self.gradient = self.flat.values, self.flat.gradient
        self.weights = self.values[: sets.num_fixable]
        self.fixed = torch.zeros_like(self.weights, dtype=torch.bool)

    def allowed_distance(self, index: int) -> float:
        """Mean relative distance that a group of weights may move in round `index`; in the last round it is `delta`."""
        return self.config.delta * (len(self.fractions) - index)

    def train(self, index: int) -> float | None:
        """Train the free weights and the other parameters, with the pull as soon as there are fixed values."""
        training = self.task.config.training
        num_epochs, num_steps = epochs_and_steps(training, index, self.task.num_steps(training))
        labels = [f"round {index + 1} epoch {epoch + 1}" for epoch in range(num_epochs)]
        return self._descend(labels, num_steps, self._pull())

    def settle(self, fixing: Fixing) -> Fixing:
        """Train the parameters outside the fixed set for `training.settle_epochs`."""
        training = self.task.config.training
        _, num_steps = epochs_and_steps(training, len(self.fractions), self.task.num_steps(training))
        self._descend([f"settling epoch {epoch + 1}" for epoch in range(training.settle_epochs)], num_steps, None)
        return fixing

    def _descend(self, labels: list[str], num_steps: int, pull: Pull | None) -> float | None:
        """Train an epoch for each label; return the mean loss, or None if there is no epoch."""
        if not labels:
            return None
        training = self.task.config.training
        held = torch.zeros_like(self.values, dtype=torch.bool)
        held[: len(self.fixed)] = self.fixed
        descent = Descent(
            self.values,
            self.gradient,
            training,
            num_steps=len(labels) * num_steps,
            replicas=self.task.replicas,
            held=held,
        )
        learner = PulledLearner(
            self.task.network, descent, self.flat, self.fixed.logical_not(), pull, self.config.regularization_ratio
        )
        losses = self.task.train_epochs(learner, labels, num_steps=num_steps, batch_size=training.batch_size)
        return float(np.mean(list(losses)))

    def _pull(self) -> Pull | None:
        """Tabulate the pull towards the values that weights have been fixed to so far; None if there are none."""
        config = self.config
        if config.regularization_ratio == 0 or not self.fixed.any():
            return None
        return Pull(
            Codebook.of(self.weights[self.fixed]).values,
            temperature=config.temperature,
            zero_distance=config.zero_distance,
            largest=float(self.weights.abs().max()),
            device=self.weights.device,
        )

    def fix(self, index: int) -> Fixing:
        """Fix free weights until the round's share of all weights is fixed.

        Raises:
            DivergedWeightsError: a free weight is NaN or infinite.
        """
        need = ceil(len(self.weights) * self.fractions[index]) - int(self.fixed.sum())
        groups = assign(
            self.weights,
            self.fixed,
            need=need,
            allowed=self.allowed_distance(index),
            zero_distance=self.config.zero_distance,
        )
        with torch.no_grad():
            for group in groups:
                self.weights[group.places] = group.value
                self.fixed[group.places] = True
        return Fixing(num_fixed=int(self.fixed.sum()), codebook=Codebook.of(self.weights[self.fixed]))

    def state(self) -> State:
        """Return copies, on the CPU, of the parameters, of `fixed`, and of BatchNorm's buffers."""
        return copied({"values": self.values, "fixed": self.fixed, **buffers_of(self.task.network)})

    def load_state(self, state: State) -> None:
        """Continue from what `state` returned."""
        self.values.copy_(state["values"])
        self.fixed.copy_(state["fixed"])
        restore_buffers_(self.task.network, state)


class PulledLearner(Learner):
    """Trains a network on the cross-entropy and the pull of its free weights towards the fixed values."""

    def __init__(
        self, network: nn.Module, descent: Descent, flat: FlatParameters, free: Tensor, pull: Pull | None, ratio: float
    ) -> None:
        super().__init__(network, descent, [flat])
        self.free = free
        """Whether each weight is free, bool `(num_weights,)`."""
        self.places = free.nonzero().squeeze(1)
        """Indices of the free weights, int64 `(num_free,)`."""
        self.pull = pull
        self.ratio = ratio
        """Size of the penalty as a share of the cross-entropy."""
        self._mean = self._alpha = self._slope = torch.empty(0)

    @torch.no_grad()
    def prepare(self) -> None:
        """Forget the gradients, and find the mean distance of the free weights and its slope."""
        super().prepare()
        if self.pull is None:
            return
        weights, num_free = self.flats[0].values[: len(self.free)], len(self.places)
        if weights.device.type == "cpu":
            distance, self._slope = self.pull(weights[self.places])
            self._mean = distance.mean()
        else:
            self._slope = torch.empty_like(weights) if len(self._slope) == 0 else self._slope
            self._mean = pull_(self._slope, weights, self.free, self.pull.table) / num_free
        self._alpha = torch.zeros_like(self._mean)

    @torch.no_grad()
    def penalty(self, loss: Tensor) -> Tensor:
        """Return the penalty alpha L, whose gradient `step` adds to that of the free weights.

        L is the mean expected distance of the free weights. alpha = ratio loss / L counts as a constant; if L is zero,
        there is no penalty.
        """
        if self.pull is None:
            return torch.zeros_like(loss)
        alpha = torch.where(self._mean > 0, self.ratio * loss / self._mean, 0)
        self._alpha += alpha  # the parts of a batch add up
        return alpha * self._mean

    @torch.no_grad()
    def step(self) -> None:
        """Update the free weights and the other parameters."""
        self.collect()
        if self.pull is not None:
            gradient, strength = self.flats[0].gradient, self._alpha / len(self.places)
            if gradient.device.type == "cpu":
                gradient.index_add_(0, self.places, strength * self._slope)
            else:
                add_pull_(gradient[: len(self.free)], self._slope, strength)
        self.descent.step()

    def generators(self) -> list[torch.Generator]:
        """A step draws nothing."""
        return []
