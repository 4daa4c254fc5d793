"""The data-parallel workers of one trial, as the algorithms see them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    def mean_together_(self, tensors: Sequence[Tensor]) -> None:
        """Average several tensors over all replicas, in place; none waits for the one before it."""
        if self.world_size > 1:
            works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work, tensor in zip(works, tensors, strict=True):
                work.wait()
                tensor.div_(self.world_size)

    def agree(self, decision: int, device: torch.device) -> int:
        """Return on all replicas the `decision` that the first one passes; that of the others is ignored."""
        if self.world_size == 1:
            return decision
        return int(self.sum_(torch.tensor(decision if self.is_first else 0, device=device)))

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return what each replica passes, by rank; on the CPU."""
        if self.world_size == 1:
            return [dict(tensors)]
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, dict(tensors))
        return found

    def differing(self, tensors: Mapping[str, Tensor], device: torch.device) -> list[str]:
        """Name the tensors that are not the same on all replicas, to the last bit; they all get the same answer."""
        if self.world_size == 1:
            return []
        least = torch.tensor([_digest(tensor) for tensor in tensors.values()], device=device)
        most = least.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return [name for name, differs in zip(tensors, (least != most).tolist(), strict=True) if differs]

    def average_buffers_(self, network: nn.Module) -> None:
        """Average the floating-point buffers (BatchNorm's statistics); each replica computed them on its own images."""
        for buffer in network.buffers():
            if buffer.is_floating_point():
                self.mean_(buffer)


def _digest(tensor: Tensor) -> int:
    """A number in [0, 2^63) that follows from the type, the shape and every bit of a tensor."""
    content = tensor.detach().cpu().contiguous()
    name = f"{content.dtype}/{tuple(content.shape)}".encode()
    digest = hashlib.sha256(name + content.view(-1).view(torch.uint8).numpy().tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
