"""The greedy path of one layer's neurons, all in parallel.

A layer has `groups` independent groups of `neurons` with `features` inputs each; one group but for grouped convolution.
X holds the float network's inputs, X~ those in the network whose earlier layers are already quantised. Both have
samples as columns, so that their row t is the paper's X_t, and G = X~ X^T, H = X~ X~^T.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.methods.gpfq.alphabet import Quantize

BLOCK_FEATURES = 128
"""Features whose corrections are gathered into one matrix product; the results do not depend on it but by rounding."""


class LayerInputs(ABC):
    """What path following has to know of X and X~."""

    @abstractmethod
    def energies(self) -> Tensor:
        """||X~_t||^2, float64 `(groups, features)`."""

    @abstractmethod
    def reordered(self, order: Tensor) -> LayerInputs:
        """Put each group's features in another order, int64 `(groups, features)`."""

    @abstractmethod
    def follow_path(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Quantise float64 weights `(groups, neurons, features)`, each feature by its own Q_A, one after the other."""


@dataclass(frozen=True)
class Grams(LayerInputs):
    """G and H, float64 `(groups, features, features)`: all that the path depends on."""

    cross: Tensor
    gram: Tensor

    def energies(self) -> Tensor:
        """Return the diagonal of H."""
        return self.gram.diagonal(dim1=-2, dim2=-1)

    def reordered(self, order: Tensor) -> Grams:
        """Reorder rows and columns of both."""
        rows, columns = order[:, :, None], order[:, None]
        return Grams(*(m.take_along_dim(rows, 1).take_along_dim(columns, 2) for m in (self.cross, self.gram)))

    def follow_path(self, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
        """Compute the path without its samples, a block of features at a time.

        q_t = Q_A( ( sum_{j<=t} w_j G_tj - sum_{j<t} q_j H_tj ) / H_tt ), with 0 as the argument where H_tt = 0.
        """
        energies = self.energies()
        remaining = weights @ self.cross.tril().mT
        levels = torch.zeros_like(weights)
        for start in range(0, weights.shape[-1], BLOCK_FEATURES):
            block = slice(start, min(start + BLOCK_FEATURES, weights.shape[-1]))
            remaining[..., block] -= levels[..., :start] @ self.gram[:, block, :start].mT
            for t in range(block.start, block.stop):
                levels[..., t] = quantizers[t](_ratio(remaining[..., t], energies[:, t, None]))
                later = slice(t + 1, block.stop)
                remaining[..., later] -= levels[..., t, None] * self.gram[:, None, later, t]
        return levels


@dataclass(frozen=True)
class Samples(LayerInputs):
    """X and X~, float32 or float64 `(groups, features, samples)`: no memory in the square of the features."""

    float_inputs: Tensor
    inputs: Tensor

    def energies(self) -> Tensor:
        """Sum the squares of each row of X~."""
        return self.inputs.double().square().sum(dim=2)

    def reordered(self, order: Tensor) -> Samples:
        """Reorder rows of both."""
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
    """Order each group's features by their energy, the largest first; equal ones keep their order.

    Args:
        energies: `(groups, features)`.
        has_constant: the last feature is the bias's constant input; it stays last.

    Returns:
        Indices of features, int64 `(groups, features)`.
    """
    if has_constant:
        energies = torch.cat([energies[:, :-1], torch.full_like(energies[:, :1], -torch.inf)], dim=1)
    return energies.argsort(dim=1, descending=True, stable=True)


def follow_path_in_order(inputs: LayerInputs, order: Tensor, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
    """Quantise weights `(groups, neurons, features)` with their features in `order`; levels come back as stored.

    The quantisers are in that order too.
    """
    levels = inputs.reordered(order).follow_path(weights.take_along_dim(order[:, None], 2), quantizers)
    return levels.take_along_dim(order.argsort(dim=1)[:, None], 2)


def _ratio(projection: Tensor, energy: Tensor) -> Tensor:
    return torch.where(energy > 0, projection / energy, 0.0)
