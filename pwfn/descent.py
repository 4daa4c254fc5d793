"""Gradient descent on one flat buffer, parts of which may be held still."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pwfn.config import OptimizationConfig
from pwfn.parameters import as_factor, in_pieces
from pwfn.replicas import Replicas


class Descent:
    """A fresh optimiser on `values`, a flat `(num_values,)` buffer, and its `gradient`.

    Where `held` (bool, same shape) is true nothing moves: the gradient is zeroed before clipping, weight decay is
    added by us where nothing is held, and the optimiser starts without momentum, so that SGD and Adam both update by
    exactly zero there. One step reduces, holds, clips, decays and updates, each in one operation on the buffer.
    """

    def __init__(
        self,
        values: Tensor,
        gradient: Tensor,
        config: OptimizationConfig,
        *,
        num_steps: int,
        replicas: Replicas,
        held: Tensor | None = None,
    ) -> None:
        self.values = nn.Parameter(values, requires_grad=False)
        self.values.grad = gradient
        self.gradient = gradient
        self.config = config
        self.replicas = replicas
        self.free = held.logical_not() if held is not None and held.any() else None
        self.optimizer = _optimizer(self.values, config)
        self.scheduler = _scheduler(self.optimizer, config, num_steps)

    @torch.no_grad()
    def step(self) -> None:
        """Update once from the gradient of this replica's images."""
        self.replicas.mean_(self.gradient)
        self._hold()
        if self.config.clip_norm is not None:
            # Scaled without asking for the norm's value, which would stop the GPU at every step.
            self.gradient.mul_((self.config.clip_norm / (self.gradient.norm() + 1e-6)).clamp(max=1))
        if self.config.weight_decay > 0:
            self._decay()
        self.optimizer.step()
        self.scheduler.step()

    def _hold(self) -> None:
        if self.free is not None:
            for gradient, free in in_pieces(self.gradient, self.free):
                gradient.mul_(as_factor(free, gradient))

    def _decay(self) -> None:
        if self.free is None:
            self.gradient.add_(self.values, alpha=self.config.weight_decay)
        else:
            for gradient, values, free in in_pieces(self.gradient, self.values, self.free):
                gradient.addcmul_(values, as_factor(free, gradient), value=self.config.weight_decay)


def _optimizer(values: nn.Parameter, config: OptimizationConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam([values], lr=config.lr, fused=True)
    return torch.optim.SGD([values], lr=config.lr, momentum=config.momentum, fused=True)


def _scheduler(
    optimizer: torch.optim.Optimizer, config: OptimizationConfig, num_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.lr_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(num_steps, 1))
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
