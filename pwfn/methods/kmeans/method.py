"""K-means: few values with the least (weighted) squared error replace the trained weights, without further training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pwfn.config import KmeansConfig
from pwfn.errors import DivergedWeightsError
from pwfn.methods.gpfq.network import assign_layerwise_
from pwfn.methods.kmeans.powers import round_to_order
from pwfn.methods.kmeans.values import FloatArray, kmeans_values, nearest_values
from pwfn.methods.rounds import Fixing, Method
from pwfn.parameters import split_parameters
from pwfn.task import Task

FISHER_DAMPING = 1e-3
"""This share of the mean Fisher information is added to that of each weight: a weight that no image depends on still
counts a little."""


class Kmeans(Method):
    """K-means of the weights of a task's network, exact in one dimension: one round that fixes all weights.

    Each replica computes the Fisher information of a part of the images, and the sum over all replicas is the same for
    all. Everything else is the same computation on the CPU of each replica.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        assert isinstance(task.config.method, KmeansConfig)
        self.config = task.config.method

    @torch.no_grad()
    def fix(self, index: int) -> Fixing:
        """Replace every weight by a value of its codebook.

        Raises:
            DivergedWeightsError: NaN or infinity in the weights or in the Fisher information.
            UserError: with `assignment` other than nearest, a layer does not run for all images.
        """
        parameters = list(split_parameters(self.task.network).fixable.values())
        weights = finite_array("the weights", torch.cat([parameter.flatten() for parameter in parameters]))
        fisher = self._fisher()
        ends = np.cumsum([parameter.numel() for parameter in parameters])
        pieces = [slice(end - p.numel(), end) for p, end in zip(parameters, ends, strict=True)]
        if self.config.scope == "network":
            codebooks = [self._codebook(weights, fisher)] * len(pieces)
        else:
            codebooks = [self._codebook(weights[p], None if fisher is None else fisher[p]) for p in pieces]
        if self.config.assignment != "nearest":
            values_of: dict[Tensor, Tensor] = {
                p: torch.from_numpy(c).to(p) for p, c in zip(parameters, codebooks, strict=True)
            }
            num_images = self.config.calibration_images
            untreated = assign_layerwise_(
                self.task, values_of.__getitem__, self.config.assignment, calibration_images=num_images
            )
            return Fixing.of_all(self.task.network, untreated_layers=tuple(layer.name for layer in untreated))
        for parameter, piece, values in zip(parameters, pieces, codebooks, strict=True):
            parameter.copy_(torch.from_numpy(nearest_values(weights[piece], values)).view_as(parameter))
        return Fixing.of_all(self.task.network)

    def _fisher(self) -> FloatArray | None:
        """Fisher information of every weight, `(num_weights,)`; None with `weighting: plain`."""
        if self.config.weighting == "plain":
            return None
        return finite_array("the Fisher information", self.task.fisher(self.config.fisher_images))

    def _codebook(self, weights: FloatArray, fisher: FloatArray | None) -> FloatArray:
        """Find the ascending values for weights `(n,)`: k-means, or the sums of few powers of two nearest to it."""
        values = kmeans_values(weights, self.config.num_values, None if fisher is None else relative_importance(fisher))
        return values if self.config.max_order is None else np.unique(round_to_order(values, self.config.max_order))


def relative_importance(fisher: FloatArray) -> FloatArray | None:
    """Divide the Fisher information `(n,)` by its mean and make it positive; return None if it is zero everywhere."""
    mean = fisher.mean(dtype=np.float64)
    return (fisher / mean + FISHER_DAMPING).astype(np.float32) if mean > 0 else None


def finite_array(what: str, tensor: Tensor) -> FloatArray:
    """Return a tensor as an array on the CPU.

    Raises:
        DivergedWeightsError: it holds NaN or infinity; the message calls it `what`.
    """
    if not tensor.isfinite().all():
        raise DivergedWeightsError(f"k-means needs finite numbers, but {what} hold NaN or infinity")
    return tensor.cpu().numpy()
