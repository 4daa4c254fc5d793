"""The data-parallel workers of one trial, as the algorithms see them: a rank, a size and two reductions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Replicas:
    """This process among `world_size` equal ones; with one, every operation does nothing.

    With more, torch.distributed's default group must be ready. All replicas have to call each method together.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the replica that writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all replicas, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        """Average a tensor over all replicas, in place."""
        return self.sum_(tensor).div_(self.world_size) if self.world_size > 1 else tensor

    def agree(self, decision: int, device: torch.device) -> int:
        """Return what the first replica has decided; the others' own is ignored."""
        return int(self.sum_(torch.tensor(decision if self.is_first else 0, device=device)))

    def average_buffers_(self, network: nn.Module) -> None:
        """Average the floating-point buffers (BatchNorm statistics), which each replica gathers on its own images."""
        for buffer in network.buffers():
            if buffer.is_floating_point():
                self.mean_(buffer)
