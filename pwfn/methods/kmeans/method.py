"""K-means: the trained weights go to the nearest of few values that cost the least, without any training."""

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
"""Added to the Fisher information, times its mean: weights that no image reaches still count, a little."""


class Kmeans(Method):
    """K-means of the weights of a task's network, exact in one dimension: one round that fixes all weights.

    The replicas share out the images of the Fisher information and add up what they found, so that all have the same;
    what follows is the same arithmetic on the CPU of each.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        assert isinstance(task.config.method, KmeansConfig)
        self.config = task.config.method

    @torch.no_grad()
    def fix(self, index: int) -> Fixing:
        """Replace every weight by the nearest value of its codebook."""
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
        """Fisher information of every weight `(num_weights,)`, None where the configuration weighs all alike."""
        if self.config.weighting == "plain":
            return None
        return finite_array("the Fisher information", self.task.fisher(self.config.fisher_images))

    def _share(self, weights: FloatArray, importance: FloatArray | None) -> FloatArray:
        """Give weights `(n,)` their values: k-means's own, or the sums of few powers of two nearest to those."""
        values = kmeans_values(weights, self.config.num_values, importance)
        if self.config.max_order is not None:
            values = np.unique(round_to_order(values, self.config.max_order))
        return nearest_values(weights, values)


def relative_importance(fisher: FloatArray) -> FloatArray | None:
    """Make the Fisher information of some weights positive, relative to its mean; None where it is zero throughout."""
    mean = fisher.mean(dtype=np.float64)
    return (fisher / mean + FISHER_DAMPING).astype(np.float32) if mean > 0 else None


def finite_array(what: str, tensor: Tensor) -> FloatArray:
    """Return float32 `(n,)` on the CPU; raise DivergedWeightsError if it holds NaN or infinity."""
    if not tensor.isfinite().all():
        raise DivergedWeightsError(f"k-means needs finite numbers, but {what} hold NaN or infinity")
    return tensor.cpu().numpy()
