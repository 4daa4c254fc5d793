"""The data-parallel workers of one trial, as the algorithms see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Replicas:
    """This process as one of `world_size` replicas, which do the same work on different images.

    With one replica, no method changes anything. With more, torch.distributed's default group must be ready, and all
    replicas must call each method together.
    """

    rank: int = 0
    """Number of this replica; the first is 0."""
    world_size: int = 1
    """Number of replicas."""

    @property
    def is_first(self) -> bool:
        """Whether this is the first replica, which writes files and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all replicas, in place; return it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        """Average a tensor over all replicas, in place; return it."""
        return self.sum_(tensor).div_(self.world_size) if self.world_size > 1 else tensor

    def agree(self, decision: int, device: torch.device) -> int:
        """Return on all replicas the `decision` that the first one passes; that of the others is ignored."""
        return int(self.sum_(torch.tensor(decision if self.is_first else 0, device=device)))

    def average_buffers_(self, network: nn.Module) -> None:
        """Average the floating-point buffers (BatchNorm's statistics); each replica computed them on its own images."""
        for buffer in network.buffers():
            if buffer.is_floating_point():
                self.mean_(buffer)
