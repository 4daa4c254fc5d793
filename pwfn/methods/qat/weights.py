"""The latent weights of a network, the values that it sees in their place, and the buffers that hold both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pwfn.codebook import FloatArray
from pwfn.config import OptimizationConfig, QatConfig
from pwfn.descent import Descent
from pwfn.errors import UserError
from pwfn.methods.qat.assignment import (
    assign_,
    assign_and_show_,
    assign_by_importance_,
    counts_by_value,
    edges_between,
    show_,
    sums_by_value,
)
from pwfn.methods.qat.codebook import first_values, power_candidates
from pwfn.parameters import FlatParameters, ParameterSets, copied
from pwfn.replicas import Replicas

STEPS_BETWEEN_COUNTS = 10
"""Number of training steps after which the weights of each value are counted again. The counts change slowly, and
counting takes a CPU half as long as the rest of the assignment."""


class SharedWeights:
    """N latent weights w, K values c that the network sees in their place, and M other parameters.

    `values` is `(N + M + K,)`: the latent weights, the other parameters, and the codebook in any order. `gradient` has
    the same layout. The weights that the network has are another buffer, `shown` `(N,)`. Their gradient is used as the
    gradient of the latent weights (the straight-through estimator: Bengio et al. 2013, arXiv 1308.3432). `places` is
    uint8 `(N,)`: the rank of each weight's value in the sorted codebook.

    Raises:
        UserError: more values than weights, or than sums of powers of two.
    """

    def __init__(self, sets: ParameterSets, config: QatConfig) -> None:
        fixable, rest = list(sets.fixable.values()), list(sets.rest.values())
        self.config = config
        self.num_weights = sets.num_fixable
        self.num_trained = self.num_weights + sum(parameter.numel() for parameter in rest)
        if config.sizes[0] > self.num_weights:
            raise UserError(
                f"method.{'stages' if config.stages else 'num_values'}: {config.sizes[0]} values are asked for, but "
                f"the network has only {self.num_weights} weights; ask for fewer values than weights"
            )
        self.values = fixable[0].new_zeros(self.num_trained + config.sizes[0], requires_grad=False)
        self.gradient = torch.zeros_like(self.values)
        self.latent = self.values[: self.num_weights]
        self.weights_gradient = self.gradient[: self.num_weights]
        own = slice(self.num_weights, self.num_trained)
        of_weights = FlatParameters(fixable, gradient=self.weights_gradient)
        self.flats = (of_weights, FlatParameters(rest, self.values[own], self.gradient[own]))
        self.shown = of_weights.values
        self.latent.copy_(self.shown)
        self.places = torch.zeros_like(self.latent, dtype=torch.uint8)
        self.importance: Tensor | None = None
        """Importance of each weight when values are assigned, `(N,)`, mean about 1; None: all weights count alike."""
        self.num_values = 0
        self.scale = self.latent.new_ones(())
        """Mean square of the latent weights when the stage began; squared errors are divided by it."""
        self.counts = self.latent.new_zeros(0)
        """Number of weights of each value when they were last counted, in the order of the codebook, `(K,)`."""
        self.candidates: Tensor | None = None
        """The only values that are allowed, ascending; None allows any number."""
        if config.values == "powers_of_two":
            self.candidates = torch.from_numpy(power_candidates(config, float(self.latent.abs().max()))).to(self.latent)

    @property
    def codebook(self) -> Tensor:
        """The values as they are trained, `(K,)`, in any order."""
        return self.values[self.num_trained : self.num_trained + self.num_values]

    @property
    def codebook_gradient(self) -> Tensor:
        """Gradient of the values, `(K,)`."""
        return self.gradient[self.num_trained : self.num_trained + self.num_values]

    def descent(
        self, config: OptimizationConfig, *, num_steps: int, replicas: Replicas, hold_weights: bool = False
    ) -> Descent:
        """Make an optimiser and a schedule for weights, parameters and values, or without the latent weights."""
        begin, end = self.num_weights if hold_weights else 0, self.num_trained + self.num_values
        return Descent(
            self.values[begin:end],
            self.gradient[begin:end],
            config,
            num_steps=num_steps,
            replicas=replicas,
            lr_factors=[(self.num_trained - begin, 1.0), (self.num_values, self.config.values_lr_ratio)],
        )

    @torch.no_grad()
    def start_stage_(self, num_values: int, importance: FloatArray | None) -> None:
        """Choose new values for the present latent weights.

        Args:
            num_values: largest number of values.
            importance: of each weight, `(N,)`; None: all weights count alike.
        """
        latent = self.latent.cpu().numpy()
        candidates = None if self.candidates is None else self.candidates.cpu().numpy()
        values = first_values(latent, num_values, importance, zero=self.config.zero, candidates=candidates)
        self.num_values = len(values)
        self.codebook.copy_(torch.from_numpy(values))
        self.scale = self.latent.square().mean()
        weighs = importance is not None and self.config.rate_strength > 0
        self.importance = torch.from_numpy(np.asarray(importance)).to(self.latent) if weighs else None
        self._find_places_()

    def _find_places_(self) -> None:
        """Find the nearest value of each latent weight in the codebook of a new stage, which ascends, and count."""
        assign_(self.places, self.latent, edges_between(self.codebook))
        self.count_(torch.arange(self.num_values, device=self.latent.device))

    @torch.no_grad()
    def start_from_shown_(self) -> None:
        """Let a new stage start from the weights that the network has now, instead of the present latent weights."""
        self.latent.copy_(self.shown)
        self._find_places_()

    @torch.no_grad()
    def dampen_(self, share: float) -> None:
        """Move each latent weight by `share * dampening / rms`, at most 1, of the way to what the network has seen."""
        if self.config.dampening > 0:
            self.latent.lerp_(self.shown, (share * self.config.dampening / self.scale.sqrt()).clamp(max=1))

    @torch.no_grad()
    def count_(self, order: Tensor) -> None:
        """Count the weights of each value; `order` `(K,)` lists the indices of the codebook by ascending value."""
        counts = counts_by_value(self.places, self.num_values)
        self.counts = torch.zeros_like(self.codebook).index_copy_(0, order, counts.to(self.codebook.dtype))

    @torch.no_grad()
    def assign_(self, share_shown: float = 1.0) -> Tensor:
        """Choose the value of each latent weight and give it to the network.

        Args:
            share_shown: 1 gives the network the values; less gives it points that are this share of the way from the
                latent weight to its value.

        Returns:
            The indices of the codebook by ascending value, int64 `(K,)`.
        """
        values, order = self._allowed().sort(stable=True)
        if self.importance is None:
            penalties = None if self.config.rate_strength == 0 else self._penalties()[order]
            assign_and_show_(self.places, self.shown, self.latent, edges_between(values, penalties), values)
        else:
            assign_by_importance_(self.places, self.latent, self.importance, values, self._penalties()[order])
            show_(self.shown, self.places, values)
        if share_shown < 1:
            torch.lerp(self.latent, self.shown, share_shown, out=self.shown)
        return order

    @torch.no_grad()
    def show_(self, order: Tensor) -> None:
        """Give the network the present values without choosing again; `order` is what `assign_` returned."""
        show_(self.shown, self.places, self._allowed()[order])

    def _allowed(self) -> Tensor:
        """The codebook with every value moved to the nearest candidate, if there are any, `(K,)`; zero is +0."""
        values = self.codebook
        if self.candidates is not None:
            values = self.candidates[torch.bucketize(values, edges_between(self.candidates))]
        return values + 0

    def _penalties(self) -> Tensor:
        """Cost of each value, `(K,)`: lambda times its bits times `scale`.

        Half a weight is added to each count, so that a value without weights costs many bits, but not infinitely many.
        """
        share = (self.counts + 0.5) / (self.num_weights + 0.5 * self.num_values)
        return self.config.rate_strength * self.scale * -share.log2()

    @torch.no_grad()
    def fill_codebook_gradient_(self, order: Tensor) -> None:
        """Set the gradient of each value to the mean gradient of its weights, with `method.zero` that of zero to 0."""
        sums = sums_by_value(self.places, self.weights_gradient, self.num_values)
        gradient = self.codebook_gradient
        gradient.index_copy_(0, order, sums).div_(self.counts.clamp(min=1))
        if self.config.zero:
            gradient.mul_(self.codebook != 0)

    def state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of the tensors that `load_state` needs."""
        tensors = {"values": self.values, "shown": self.shown, "scale": self.scale, "counts": self.counts}
        if self.importance is not None:
            tensors["importance"] = self.importance
        return copied(tensors)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned, the network's weights included."""
        self.values.copy_(state["values"])
        self.shown.copy_(state["shown"])
        self.scale = state["scale"].to(self.scale)
        self.counts = state["counts"].to(self.latent)
        self.num_values = len(self.counts)
        self.importance = state["importance"].to(self.latent) if "importance" in state else None
