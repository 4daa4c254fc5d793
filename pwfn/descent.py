"""Gradient descent on one flat buffer, parts of which may be held fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pwfn.config import OptimizationConfig
from pwfn.parameters import as_factor, copied, in_pieces
from pwfn.replicas import Replicas


class Descent:
    """A new optimiser for one flat buffer, with its learning rate schedule.

    Entries that are held do not change: their gradient is set to zero before clipping, no weight decay is added to it,
    and the optimiser starts without momentum, so that SGD and Adam update them by exactly zero. One step averages the
    gradient over the replicas, holds, clips, decays and updates, with few operations on the whole buffer.

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
        self.optimizer = _optimizer(_groups(values, gradient, lr_factors or [(len(values), 1.0)], config.lr), config)
        self.scheduler = _scheduler(self.optimizer, config, num_steps)

    @torch.no_grad()
    def step(self) -> None:
        """Update the values once; `gradient` must hold the gradient of this replica's images, and is overwritten."""
        self.replicas.mean_(self.gradient)
        self._hold()
        self.clip()
        if self.config.weight_decay > 0:
            self._decay()
        self.optimizer.step()
        self.scheduler.step()

    def clip(self) -> None:
        """Scale a gradient with too large a norm down to the largest that is allowed."""
        if self.config.clip_norm is not None:
            # The CPU does not read the norm: it would have to wait for the GPU at every step.
            self.gradient.mul_((self.config.clip_norm / (self.gradient.norm() + 1e-6)).clamp(max=1))

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

    def _decay(self) -> None:
        if self.free is None:
            self.gradient.add_(self.values, alpha=self.config.weight_decay)
        else:
            for gradient, values, free in in_pieces(self.gradient, self.values, self.free):
                gradient.addcmul_(values, as_factor(free, gradient), value=self.config.weight_decay)


def _groups(
    values: Tensor, gradient: Tensor, lr_factors: Sequence[tuple[int, float]], lr: float
) -> list[dict[str, object]]:
    """Cut the buffer into parameter groups of the optimiser, each with its own learning rate."""
    lengths = [length for length, _ in lr_factors]
    pieces = zip(torch.split(values, lengths), torch.split(gradient, lengths), lr_factors, strict=True)
    groups: list[dict[str, object]] = []
    for piece, of_piece, (_, factor) in pieces:
        parameter = nn.Parameter(piece, requires_grad=False)
        parameter.grad = of_piece
        groups.append({"params": [parameter], "lr": factor * lr})
    return groups


def _optimizer(groups: list[dict[str, object]], config: OptimizationConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)


def _scheduler(
    optimizer: torch.optim.Optimizer, config: OptimizationConfig, num_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.lr_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(num_steps, 1))
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
