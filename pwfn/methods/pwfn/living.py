"""Living weights: fixed weights that keep a latent weight, which trains on and may give them another value.

This is `method.fixed_weights: live`, which is not in the paper: there a fixed weight keeps its value until a later
round gives it another one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pwfn.codebook import FloatArray
from pwfn.methods.pwfn.clustering.intervals import SMALLEST_SIGMA
from pwfn.methods.qat.assignment import assign_and_show_, edges_between
from pwfn.parameters import copied


class LivingWeights:
    """The values that the network sees for fixed weights, and the limits of the latent weights behind them.

    When a round fixes a weight, the posterior's mu of this weight becomes its latent weight. From then on the network
    sees, in every training step, the value of the round's codebook that is nearest to the latent weight. The gradient
    of this value moves the latent weight (the straight-through estimator). The latent weight stays within a distance of
    the point where it was when it was fixed: the round's radius times the weight's sigma before `sigma_join` changed
    it. The next round fixes all weights again, from where the latent weights are then.

    For N weights and K values: `anchor` and `reach` are `(N,)`, the point where each latent weight was when it was
    fixed and the largest distance from it. `values` is `(K,)`, in any order, and `order` sorts it. `places` is int32
    `(N,)`, the rank of each weight's value in the sorted values.
    """

    def __init__(self, mu: Tensor) -> None:
        self.anchor = mu.clone()
        self.reach = torch.zeros_like(mu)
        self.places = torch.zeros_like(mu, dtype=torch.int32)
        self.values = mu.new_zeros(1)
        self.order = torch.zeros(1, dtype=torch.int64, device=mu.device)

    def fix_(self, mu: Tensor, sigma: Tensor, values: FloatArray, radius: float) -> None:
        """Start anew from the latent weights as they are now.

        Args:
            mu: the latent weights, `(N,)`.
            sigma: before `sigma_join` changes it, `(N,)`.
            values: of the round's codebook, ascending, `(K,)`.
            radius: of the round, in sigmas.
        """
        self.anchor.copy_(mu)
        self.reach.copy_(sigma.clamp(min=SMALLEST_SIGMA)).mul_(radius)
        self.values = torch.from_numpy(values).to(mu)

    @torch.no_grad()
    def shown(self, mu: Tensor, fixed: Tensor) -> Tensor:
        """Return for each fixed weight the value nearest to `mu`, and for each free weight `mu` itself; `(N,)`."""
        shown = torch.empty_like(mu)
        values, self.order = self.values.sort(stable=True)
        assign_and_show_(self.places, shown, mu, edges_between(values), values)
        return torch.where(fixed, shown, mu)

    @torch.no_grad()
    def limit_(self, mu: Tensor, fixed: Tensor) -> None:
        """Move latent weights of fixed weights that are beyond their reach back to its edge, in `mu`."""
        limited = torch.clamp(mu, self.anchor - self.reach, self.anchor + self.reach)
        mu.copy_(torch.where(fixed, limited, mu))

    def state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of the tensors that `load_state` needs."""
        return copied({"living.anchor": self.anchor, "living.reach": self.reach, "living.values": self.values})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self.anchor.copy_(state["living.anchor"])
        self.reach.copy_(state["living.reach"])
        self.values = state["living.values"].to(self.anchor)
