"""Training after the last fixing, when weights of one value can only move together."""

from __future__ import annotations

import torch

from pwfn.descent import Descent
from pwfn.methods.pwfn.posterior import Posterior
from pwfn.training import Learner


class SharedValuesLearner(Learner):
    """Trains the values that the weights share, as far as the descent does not hold them, and the other parameters.

    A value follows the mean gradient of its weights: of all steps that keep them equal, the nearest to the one that
    each would take alone.
    """

    def __init__(self, posterior: Posterior, descent: Descent) -> None:
        super().__init__(posterior.network, descent)
        self.posterior = posterior
        self.values, self.place, self.counts = torch.unique(posterior.mu, return_inverse=True, return_counts=True)

    def prepare(self) -> None:
        """Show the network the values, without noise."""
        self.posterior.show_mean_()
        self.posterior.gradient.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Update each value and the other parameters."""
        gradient, mu = self.posterior.mu_gradient, self.posterior.mu
        mean = torch.zeros_like(self.values).index_add_(0, self.place, gradient).div_(self.counts)
        torch.index_select(mean, 0, self.place, out=gradient)
        self.descent.step()
        self.values.scatter_(0, self.place, mu)
        torch.index_select(self.values, 0, self.place, out=mu)  # equal to the last bit, however they were updated
