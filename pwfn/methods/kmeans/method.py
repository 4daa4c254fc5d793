"""K-means: few values with the least (weighted) squared error replace the trained weights, without further training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pwfn.codebook import Codebook
from pwfn.config import KmeansConfig
from pwfn.errors import DivergedWeightsError
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
        """Replace every weight by the nearest value of its codebook.

        Raises:
            DivergedWeightsError: NaN or infinity in the weights or in the Fisher information.
        """
        parameters = list(split_parameters(self.task.network).fixable.values())
        weights = finite_array("the weights", torch.cat([parameter.flatten() for parameter in parameters]))
        fisher = self._fisher()
        ends = np.cumsum([parameter.numel() for parameter in parameters])
        starts = np.append(0, ends[:-1]) if self.config.scope == "tensor" else np.zeros(1, dtype=np.int64)
        for start, end in zip(starts, np.append(starts[1:], ends[-1]), strict=True):
            piece = slice(start, end)
            weights[piece] = self._share(weights[piece], None if fisher is None else relative_importance(fisher[piece]))
        for parameter, values in zip(parameters, np.split(weights, ends[:-1]), strict=True):
            parameter.copy_(torch.from_numpy(values).view_as(parameter))
        return Fixing(num_fixed=len(weights), codebook=Codebook.of(torch.from_numpy(weights)))

    def _fisher(self) -> FloatArray | None:
        """Fisher information of every weight, `(num_weights,)`; None with `weighting: plain`."""
        if self.config.weighting == "plain":
            return None
        return finite_array("the Fisher information", self.task.fisher(self.config.fisher_images))

    def _share(self, weights: FloatArray, importance: FloatArray | None) -> FloatArray:
        """Replace weights `(n,)` by values of k-means, or by the sums of few powers of two nearest to these."""
        values = kmeans_values(weights, self.config.num_values, importance)
        if self.config.max_order is not None:
            values = np.unique(round_to_order(values, self.config.max_order))
        return nearest_values(weights, values)


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
