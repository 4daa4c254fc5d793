"""The training steps of qat: the network sees the values, and latent weights and values move by its gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pwfn.descent import Descent
from pwfn.methods.qat.weights import STEPS_BETWEEN_COUNTS, SharedWeights
from pwfn.parameters import copied
from pwfn.training import Learner


class StraightThroughLearner(Learner):
    """Trains the latent weights, their values and the other parameters.

    Args:
        network: the network whose weights `weights` sets.
        weights: the latent weights and the codebook.
        descent: on the buffers of `weights`.
        num_steps: number of steps of the stage.
        gradual_steps: number of steps of the stage in which the network goes over from latent weights to values.
        num_steps_done: number of steps of the stage that are done already.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: SharedWeights,
        descent: Descent,
        *,
        num_steps: int,
        gradual_steps: int = 0,
        num_steps_done: int = 0,
    ) -> None:
        super().__init__(network, descent, weights.flats)
        self.weights = weights
        self.num_steps = num_steps
        self.gradual_steps = gradual_steps
        self.num_steps_done = num_steps_done
        self._order = torch.empty(0)

    @property
    def share_shown(self) -> float:
        """Share of the way from its latent weight to its value at which the network sees a weight; 1 is the value."""
        return min(1.0, self.num_steps_done / self.gradual_steps) if self.gradual_steps else 1.0

    def prepare(self) -> None:
        """Forget the gradients and give the network the present value of each weight."""
        super().prepare()
        self._order = self.weights.assign_(self.share_shown)
        if self.num_steps_done % STEPS_BETWEEN_COUNTS == 0:
            self.weights.count_(self._order)

    def step(self) -> None:
        """Update the latent weights, the values and the other parameters."""
        self.collect()
        self.weights.fill_codebook_gradient_(self._order)
        lr = self.descent.lr
        self.descent.step()
        self.num_steps_done += 1
        self.weights.dampen_(lr * self.num_steps_done / self.num_steps)

    def state(self) -> dict[str, Tensor]:
        """Copy how far the stage is, and the counts of its values, too."""
        counted = {"counts": self.weights.counts, "num_steps": torch.tensor(self.num_steps_done)}
        return {**super().state(), **copied(counted)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore them."""
        super().load_state(state)
        self.weights.counts = state["counts"].to(self.weights.latent)
        self.num_steps_done = int(state["num_steps"])


class SettlingLearner(Learner):
    """Trains the values and the other parameters; no weight changes from one value to another."""

    def __init__(self, network: nn.Module, weights: SharedWeights, descent: Descent) -> None:
        super().__init__(network, descent, weights.flats)
        self.weights = weights
        self._order = weights.assign_()
        weights.count_(self._order)

    def prepare(self) -> None:
        """Forget the gradients and give the network the present values."""
        super().prepare()
        self.weights.show_(self._order)

    def step(self) -> None:
        """Update the values and the other parameters."""
        self.collect()
        self.weights.fill_codebook_gradient_(self._order)
        self.descent.step()
