"""The greedy path of GPFQ for all neurons of one layer in parallel, and the inputs that GPTQ needs as well.

A layer has `groups` independent groups of `neurons` with `features` inputs each; only grouped convolutions have more
than one group. X holds the layer's inputs in the float network, X~ its inputs in the network whose earlier layers are
already quantised. Both have samples as columns, so that their row t is the paper's X_t. G = X~ X^T and H = X~ X~^T.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import LayerwiseAlgorithm
from pwfn.methods.gpfq.alphabet import Quantize
from pwfn.methods.gpfq.gptq import blocks, gptq_levels


class LayerInputs(ABC):
    """The inputs X and X~ of a layer, in a form from which path following can be computed."""

    @abstractmethod
    def are_finite(self) -> bool:
        """Whether neither X nor X~ holds NaN or infinity."""

    @abstractmethod
    def energies(self) -> Tensor:
        """Return ||X~_t||^2 of each feature t, float64 `(groups, features)`."""

    @abstractmethod
    def reordered(self, order: Tensor) -> LayerInputs:
        """Put the features of each group into the order given by their indices, int64 `(groups, features)`."""

    @abstractmethod
    def follow_path(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Quantise weights one feature after the other.

        Args:
            weights: float64 `(groups, neurons, features)`.
            quantizers: the quantiser Q_A of each feature.

        Returns:
            The levels, of the shape of the weights.
        """

    def gptq(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Quantise weights by GPTQ, as `gptq_levels` does; by the path where H is too large for that."""
        return self.follow_path(weights, quantizers)


@dataclass(frozen=True)
class Grams(LayerInputs):
    """G (`cross`) and H (`gram`), float64 `(groups, features, features)`; the levels depend on nothing else."""

    cross: Tensor
    gram: Tensor

    def are_finite(self) -> bool:
        """Whether neither sum holds NaN or infinity."""
        return bool(self.cross.isfinite().all() and self.gram.isfinite().all())

    def energies(self) -> Tensor:
        """Return the diagonal of H."""
        return self.gram.diagonal(dim1=-2, dim2=-1)

    def reordered(self, order: Tensor) -> Grams:
        """Reorder the rows and columns of both matrices."""
        rows, columns = order[:, :, None], order[:, None]
        return Grams(*(m.take_along_dim(rows, 1).take_along_dim(columns, 2) for m in (self.cross, self.gram)))

    def follow_path(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Compute the path from G and H, block by block.

        q_t = Q_A( ( sum_{j<=t} w_j G_tj - sum_{j<t} q_j H_tj ) / H_tt ), with 0 as the argument where H_tt = 0.
        """
        energies = self.energies()
        remaining = weights @ self.cross.tril().mT
        levels = torch.zeros_like(weights)
        for block in blocks(weights.shape[-1]):
            remaining[..., block] -= levels[..., : block.start] @ self.gram[:, block, : block.start].mT
            for t in range(block.start, block.stop):
                levels[..., t] = quantizers[t](_ratio(remaining[..., t], energies[:, t, None]))
                later = slice(t + 1, block.stop)
                remaining[..., later] -= levels[..., t, None] * self.gram[:, None, later, t]
        return levels

    def gptq(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Quantise weights as `gptq_levels` does."""
        return gptq_levels(self.cross, self.gram, weights, quantizers)


@dataclass(frozen=True)
class Samples(LayerInputs):
    """X and X~, float32 or float64 `(groups, features, samples)`: for layers whose G and H would be too large."""

    float_inputs: Tensor
    inputs: Tensor

    def are_finite(self) -> bool:
        """Whether neither X nor X~ holds NaN or infinity."""
        return bool(self.float_inputs.isfinite().all() and self.inputs.isfinite().all())

    def energies(self) -> Tensor:
        """Sum the squares of each row of X~."""
        return self.inputs.double().square().sum(dim=2)

    def reordered(self, order: Tensor) -> Samples:
        """Reorder the rows of both matrices."""
        return Samples(*(m.take_along_dim(order[:, :, None], 1) for m in (self.float_inputs, self.inputs)))

    def follow_path(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Compute the path by the paper's recursion (section 2).

        q_t = Q_A( <X~_t, u_{t-1} + w_t X_t> / ||X~_t||^2 ), u_t = u_{t-1} + w_t X_t - q_t X~_t, u_0 = 0.
        """
        energies = self.energies()
        levels = torch.zeros_like(weights)
        errors = weights.new_zeros(*weights.shape[:2], self.inputs.shape[2])  # u
        for t in range(weights.shape[-1]):
            errors += weights[..., t, None] * self.float_inputs[:, None, t].double()
            feature = self.inputs[:, t].double()
            projection = (errors @ feature[..., None]).squeeze(-1)
            levels[..., t] = quantizers[t](_ratio(projection, energies[:, t, None]))
            errors -= levels[..., t, None] * feature[:, None]
        return levels


def activation_order(energies: Tensor, *, has_constant: bool) -> Tensor:
    """Order the features of each group by their energy, the largest first; features of equal energy keep their order.

    Args:
        energies: `(groups, features)`.
        has_constant: whether the last feature is the constant input of a bias, which then stays last.

    Returns:
        Indices of features, int64 `(groups, features)`.
    """
    if has_constant:
        energies = torch.cat([energies[:, :-1], torch.full_like(energies[:, :1], -torch.inf)], dim=1)
    return energies.argsort(dim=1, descending=True, stable=True)


def quantize_in_order(
    inputs: LayerInputs,
    order: Tensor,
    weights: Tensor,
    quantizers: Sequence[Quantize],
    algorithm: LayerwiseAlgorithm = "path_following",
) -> Tensor:
    """Quantise weights with their features in a given order.

    Args:
        inputs: of the layer, with features as they are stored.
        order: indices of features, int64 `(groups, features)`.
        weights: float64 `(groups, neurons, features)`, with features as they are stored.
        quantizers: one per feature, in the given order.
        algorithm: by which they are quantised.

    Returns:
        The levels, of the shape of the weights, with features as they are stored.
    """
    ordered = inputs.reordered(order)
    quantize = ordered.gptq if algorithm == "gptq" else ordered.follow_path
    levels = quantize(weights.take_along_dim(order[:, None], 2), quantizers)
    return levels.take_along_dim(order.argsort(dim=1)[:, None], 2)


def _ratio(projection: Tensor, energy: Tensor) -> Tensor:
    return torch.where(energy > 0, projection / energy, 0.0)
