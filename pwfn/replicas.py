"""The data-parallel workers of one trial, as the algorithms see them: a rank, a size and two reductions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Replicas:
    """This process, as one of `world_size` equal ones. If there is only one, no operation does anything.

    If there are more, torch.distributed's default group must be ready, and all replicas must call each method together.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the replica that writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all replicas, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        """Average a tensor over all replicas, in place."""
        return self.sum_(tensor).div_(self.world_size) if self.world_size > 1 else tensor

    def agree(self, decision: int, device: torch.device) -> int:
        """Return the decision of the first replica to all; what the others pass is ignored."""
        return int(self.sum_(torch.tensor(decision if self.is_first else 0, device=device)))

    def average_buffers_(self, network: nn.Module) -> None:
        """Average the floating-point buffers (BatchNorm statistics), which each replica gathers on its own images."""
        for buffer in network.buffers():
            if buffer.is_floating_point():
                self.mean_(buffer)
