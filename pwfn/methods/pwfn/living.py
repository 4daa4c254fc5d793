"""Fixed weights that go on living: they show a value, keep a latent weight, and may move as far as sigma allows.

Not in the paper, where a fixed weight stays until a later round gives it another value: `method.fixed_weights: live`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pwfn.codebook import FloatArray
from pwfn.methods.pwfn.clustering.intervals import SMALLEST_SIGMA
from pwfn.methods.qat.assignment import assign_, edges_between, show_
from pwfn.parameters import copied


class LivingWeights:
    """What the fixed weights of a posterior show, and how far their latent weights, which lie in its mu, may go.

    A weight that a round fixes keeps its mu as latent weight. From then on it shows, in every step, that value of the
    round's codebook which is nearest to its latent weight, and the gradient of what it shows moves the latent weight.
    That stays within the round's radius, in the weight's sigmas as they were before the join, of where it was when
    fixed. Each round fixes anew, from where the latent weights are then.

    `anchor` and `reach` are `(N,)`: where each latent weight was when fixed, and how far from there it may go.
    `values` is `(K,)`, in any order; `order` sorts it. `places` is int32 `(N,)`: the rank of each weight's value.
    """

    def __init__(self, mu: Tensor) -> None:
        self.anchor = mu.clone()
        self.reach = torch.zeros_like(mu)
        self.places = torch.zeros_like(mu, dtype=torch.int32)
        self.values = mu.new_zeros(1)
        self.order = torch.zeros(1, dtype=torch.int64, device=mu.device)

    def fix_(self, mu: Tensor, sigma: Tensor, values: FloatArray, radius: float) -> None:
        """Begin a life around where the latent weights are now, with the ascending values of a round's codebook."""
        self.anchor.copy_(mu)
        self.reach.copy_(sigma.clamp(min=SMALLEST_SIGMA)).mul_(radius)
        self.values = torch.from_numpy(values).to(mu)

    @torch.no_grad()
    def shown(self, mu: Tensor, fixed: Tensor) -> Tensor:
        """The nearest value of each fixed weight, mu itself of the free ones; `(N,)`."""
        shown = torch.empty_like(mu)
        values, self.order = self.values.sort(stable=True)
        assign_(self.places, mu, edges_between(values))
        show_(shown, self.places, values)
        return torch.where(fixed, shown, mu)

    @torch.no_grad()
    def limit_(self, mu: Tensor, fixed: Tensor) -> None:
        """Take the latent weights of fixed weights back to within their reach."""
        limited = torch.clamp(mu, self.anchor - self.reach, self.anchor + self.reach)
        mu.copy_(torch.where(fixed, limited, mu))

    def state(self) -> dict[str, Tensor]:
        """Copy to the CPU what `load_state` needs."""
        return copied({"living.anchor": self.anchor, "living.reach": self.reach, "living.values": self.values})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.anchor.copy_(state["living.anchor"])
        self.reach.copy_(state["living.reach"])
        self.values = state["living.values"].to(self.anchor)
