"""Gradient descent on one flat buffer, parts of which may be held fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pwfn.config import OptimizationConfig
from pwfn.fused import fused
from pwfn.parameters import as_factor, copied, in_pieces
from pwfn.replicas import Replicas


class Descent:
    """A new optimiser for one flat buffer, with its learning rate schedule.

    Entries that are held do not change: their gradient counts as zero, no weight decay is added to it, and the
    optimiser starts without momentum, so that SGD and Adam update them by exactly zero. One step averages the gradient
    over the replicas, holds, clips, decays and updates: on a GPU with SGD in two kernels, of which the first finds the
    norm; else in pieces that stay in the cache, with torch's own optimiser.

    Args:
        values: the buffer, `(num_values,)`.
        gradient: of the buffer, `(num_values,)`.
        config: of the optimiser.
        num_steps: number of steps in the schedule.
        replicas: those that take the steps together.
        held: the entries that must not change, bool `(num_values,)`; None: none.
        lr_factors: length and factor on the learning rate of consecutive pieces of the buffer; None: one piece with
            factor 1.
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
        lr_factors: Sequence[tuple[int, float]] | None = None,
    ) -> None:
        self.values = values
        self.gradient = gradient
        self.config = config
        self.replicas = replicas
        self.free = held.logical_not() if held is not None and held.any() else None
        groups = _groups(values, gradient, lr_factors or [(len(values), 1.0)], config.lr)
        self.is_fused = values.device.type == "cuda" and config.optimizer == "sgd"
        """Whether a step is two kernels."""
        self.optimizer = _optimizer(groups, config) if not self.is_fused else FusedSgd(groups, config, self.free)
        self.scheduler = _scheduler(self.optimizer, config, num_steps)

    @property
    def lr(self) -> float:
        """Learning rate of the next step in the first piece of the buffer."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """Update the values once; `gradient` must hold the gradient of this replica's images, and is overwritten."""
        self.replicas.mean_(self.gradient)
        self.update()

    def write_lrs_(self) -> None:
        """Write the present learning rates to the device, where a fused step reads them; it does so itself, too."""
        if isinstance(self.optimizer, FusedSgd):
            self.optimizer.present_lrs()

    @torch.no_grad()
    def update(self, squares: Tensor | None = None) -> None:
        """Update the values once from the mean gradient over all replicas, which is overwritten.

        Args:
            squares: sum of the squares of the gradient, without what is held, if it is known already; a scalar.
        """
        if isinstance(self.optimizer, FusedSgd):
            if squares is None and self.config.clip_norm is not None:
                squares = sum_of_squares(self.gradient, self.free)
            self.optimizer.step(squares)
        else:
            self._hold()
            self._clip_and_decay()
            self.optimizer.step()
        self.scheduler.step()

    def clip(self) -> None:
        """Scale a gradient with too large a norm down to the largest that is allowed."""
        if self.config.clip_norm is not None:
            self.gradient.mul_(self._clip_factor(self.config.clip_norm))

    def _clip_factor(self, clip_norm: float) -> Tensor:
        # The CPU does not read the norm: it would have to wait for the GPU at every step.
        return clip_factor(self.gradient.norm(), clip_norm)

    def state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of the tensors that another descent on the same buffers needs to continue."""
        of_optimizer = {
            f"optimizer.{index}.{name}": tensor
            for index, tensors in self.optimizer.state_dict()["state"].items()
            for name, tensor in tensors.items()
            if tensor is not None  # SGD has no momentum before the first step
        }
        lrs = torch.tensor([group["lr"] for group in self.optimizer.param_groups], dtype=torch.float64)
        return copied({**of_optimizer, "num_steps_done": torch.tensor(self.scheduler.last_epoch), "lrs": lrs})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned; the following steps are the same to the last bit."""
        of_optimizer: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                of_optimizer.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": of_optimizer})
        # The schedule computes each learning rate from the previous one.
        for group, lr in zip(self.optimizer.param_groups, state["lrs"].tolist(), strict=True):
            group["lr"] = lr
        self.scheduler.last_epoch = int(state["num_steps_done"])

    def _hold(self) -> None:
        if self.free is not None:
            for gradient, free in in_pieces(self.gradient, self.free):
                gradient.mul_(as_factor(free, gradient))

    def _clip_and_decay(self) -> None:
        decay, clip_norm = self.config.weight_decay, self.config.clip_norm
        factor = None if clip_norm is None else self._clip_factor(clip_norm)
        pieces = [self.gradient, self.values, *([] if self.free is None else [self.free])]
        for gradient, values, *free in in_pieces(*pieces):
            if factor is not None:
                gradient.mul_(factor)
            if decay > 0 and free:
                gradient.addcmul_(values, as_factor(free[0], gradient), value=decay)
            elif decay > 0:
                gradient.add_(values, alpha=decay)


def clip_factor(norm: Tensor, clip_norm: float) -> Tensor:
    """The factor that scales a gradient with a norm above `clip_norm` down to it; a scalar, at most 1."""
    return (clip_norm / (norm + 1e-6)).clamp(max=1)


@fused
def sum_of_squares(gradient: Tensor, free: Tensor | None) -> Tensor:
    """Sum the squares of the free entries of a gradient `(n,)`; `free` is bool `(n,)`, None: all are."""
    return (gradient if free is None else gradient * as_factor(free, gradient)).square().sum()


@fused
def sgd_(
    values: Tensor,
    gradient: Tensor,
    average: Tensor | None,
    free: Tensor | None,
    squares: Tensor | None,
    lr: Tensor,
    *,
    momentum: float,
    weight_decay: float,
    clip_norm: float | None,
) -> None:
    """Hold, clip, decay and update: one step of torch's SGD, in place.

    Args:
        values: `(n,)`, overwritten.
        gradient: `(n,)`; it stays as it is.
        average: of the gradients, zero before the first step, `(n,)`, overwritten; None: no momentum.
        free: bool `(n,)`; other entries do not move. None: all are free.
        squares: sum of the squares of the free entries of the whole gradient, a scalar; None: no clipping.
        lr: learning rate, a scalar.
        momentum: factor on `average`.
        weight_decay: factor on the values, which are added to the gradient.
        clip_norm: largest norm of the gradient.
    """
    factor = None if free is None else as_factor(free, gradient)
    if factor is not None:
        gradient = gradient * factor
    if squares is not None and clip_norm is not None:
        gradient = gradient * clip_factor(squares.sqrt(), clip_norm)
    gradient = gradient + weight_decay * (values if factor is None else values * factor)
    if average is not None:
        gradient = average.mul_(momentum).add_(gradient)
    values.sub_(gradient * lr)


class FusedSgd(torch.optim.SGD):
    """SGD whose step is one kernel for each group; it also holds, clips and decays.

    What it keeps is what torch's SGD keeps, so that either goes on from the other's state.
    """

    def __init__(self, groups: list[dict[str, Any]], config: OptimizationConfig, free: Tensor | None) -> None:
        super().__init__(groups, lr=config.lr, momentum=config.momentum)
        self._config = config
        lengths = [group["params"][0].numel() for group in groups]
        self._free = [None] * len(lengths) if free is None else list(torch.split(free, lengths))
        self._lrs: list[tuple[float, Tensor]] = []

    def step(self, squares: Tensor | None = None) -> None:  # type: ignore[override]
        """Update from the gradient of each group; `squares` is the sum of the squares of all that is free in them."""
        for group, free, lr in zip(self.param_groups, self._free, self.present_lrs(), strict=True):
            [values] = group["params"]
            if self._config.momentum > 0 and "momentum_buffer" not in self.state[values]:
                self.state[values]["momentum_buffer"] = torch.zeros_like(values)
            sgd_(
                values.detach(),
                values.grad,
                self.state[values].get("momentum_buffer"),
                free,
                squares,
                lr,
                momentum=self._config.momentum,
                weight_decay=self._config.weight_decay,
                clip_norm=self._config.clip_norm,
            )

    def present_lrs(self) -> list[Tensor]:
        """The learning rate of each group on the device; it is written there when it changes."""
        if not self._lrs:
            self._lrs = [(math.nan, group["params"][0].new_empty(())) for group in self.param_groups]
        for index, (group, (before, on_device)) in enumerate(zip(self.param_groups, self._lrs, strict=True)):
            if group["lr"] != before:
                self._lrs[index] = (group["lr"], on_device.fill_(group["lr"]))
        return [on_device for _, on_device in self._lrs]


def _groups(
    values: Tensor, gradient: Tensor, lr_factors: Sequence[tuple[int, float]], lr: float
) -> list[dict[str, Any]]:
    """Cut the buffer into parameter groups of the optimiser, each with its own learning rate."""
    lengths = [length for length, _ in lr_factors]
    pieces = zip(torch.split(values, lengths), torch.split(gradient, lengths), lr_factors, strict=True)
    groups: list[dict[str, Any]] = []
    for piece, of_piece, (_, factor) in pieces:
        parameter = nn.Parameter(piece, requires_grad=False)
        parameter.grad = of_piece
        groups.append({"params": [parameter], "lr": factor * lr})
    return groups


def _optimizer(groups: list[dict[str, Any]], config: OptimizationConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def _scheduler(
    optimizer: torch.optim.Optimizer, config: OptimizationConfig, num_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.lr_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(num_steps, 1))
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
