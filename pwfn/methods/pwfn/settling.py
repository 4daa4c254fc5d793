"""Training after the last fixing: all weights of one value move together, or living weights move one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pwfn.descent import Descent
from pwfn.methods.pwfn.living import LivingWeights
from pwfn.methods.pwfn.posterior import Posterior
from pwfn.methods.qat.assignment import counts_by_value, sums_by_value
from pwfn.parameters import copied, under
from pwfn.training import Learner


class SharedValuesLearner(Learner):
    """Trains the values that the weights share and the other parameters; what the descent holds does not move.

    Each value moves by the mean gradient of its weights. Among all updates that keep these weights equal, that one is
    nearest, in squared distance, to the updates that the weights would make one by one.
    """

    def __init__(self, posterior: Posterior, descent: Descent) -> None:
        super().__init__(posterior.network, descent, posterior.flats)
        self.posterior = posterior
        self.posterior.sigma_gradient.zero_()  # no step changes it
        self.values, self.place, self.counts = torch.unique(posterior.mu, return_inverse=True, return_counts=True)
        self._order = torch.empty(0)
        if posterior.mu.device.type != "cpu":
            self._order = self.place.argsort().int()

    def prepare(self) -> None:
        """Forget the gradients and give the network the values, without noise."""
        super().prepare()
        self.posterior.show_mean_()

    @torch.no_grad()
    def step(self) -> None:
        """Update each value and the other parameters from the gradients of the backward pass."""
        self.collect()
        gradient, mu = self.posterior.mu_gradient, self.posterior.mu
        mean = self._sums(gradient).div_(self.counts)
        torch.index_select(mean, 0, self.place, out=gradient)
        self.descent.step()
        self.values.scatter_(0, self.place, mu)
        torch.index_select(self.values, 0, self.place, out=mu)  # all weights of one value stay equal to the last bit

    def _sums(self, gradient: Tensor) -> Tensor:
        """Sum the gradients of the weights of each value; a GPU adds them in one order, and none waits for another."""
        if gradient.device.type == "cpu":
            return torch.zeros_like(self.values).index_add_(0, self.place, gradient)
        return torch.segment_reduce(gradient[self._order], "sum", lengths=self.counts, unsafe=True)


class LivingLearner(Learner):
    """Trains the latent weights of living weights, the other parameters, and the values.

    `of_values` is the descent on the values: each moves by the mean gradient of the weights that have it, and zero
    stays zero. If it is None, no value moves.
    """

    def __init__(
        self, posterior: Posterior, living: LivingWeights, descent: Descent, of_values: Descent | None
    ) -> None:
        super().__init__(posterior.network, descent, posterior.flats)
        self.posterior = posterior
        self.posterior.sigma_gradient.zero_()  # no step changes it
        self.living = living
        self.of_values = of_values

    def prepare(self) -> None:
        """Forget the gradients and give each weight the value nearest to its latent weight, without noise."""
        super().prepare()
        self.posterior.show_mean_()

    @torch.no_grad()
    def step(self) -> None:
        """Update the values, the latent weights and the other parameters from the gradients of the backward pass."""
        self.collect()
        if self.of_values is not None:
            places, num_values = self.living.places, len(self.living.values)
            sums = sums_by_value(places, self.posterior.mu_gradient, num_values)
            mean = sums / counts_by_value(places, num_values).clamp(min=1)
            self.of_values.gradient.index_copy_(0, self.living.order, mean).mul_(self.living.values != 0)
            self.of_values.step()
        self.descent.step()
        self.posterior.limit_()

    def state(self) -> dict[str, Tensor]:
        """Copy the values and their optimiser, too."""
        of_values = {} if self.of_values is None else self.of_values.state()
        return {
            **super().state(),
            **copied({"living.values": self.living.values}),
            **{f"of_values.{name}": tensor for name, tensor in of_values.items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore them, in the buffers that the optimiser updates."""
        super().load_state(state)
        self.living.values.copy_(state["living.values"])
        if self.of_values is not None:
            self.of_values.load_state(under("of_values.", state))
