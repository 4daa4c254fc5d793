"""Work on many weights chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def chunks(num_weights: int, device: torch.device) -> Iterator[slice]:
    """Cut `(num_weights,)` into chunks.

    The float64 temporaries of a chunk fit into a CPU's cache, or take little of a GPU's memory.
    """
    size = 2**15 if device.type == "cpu" else 2**22
    return (slice(start, min(start + size, num_weights)) for start in range(0, num_weights, size))


def find(values: Tensor, wanted: int) -> Tensor:
    """Indices of the entries of `(num_weights,)` that equal `wanted`, int32, ascending."""
    pieces = [
        find_in_chunk(values[chunk], wanted).int().add_(chunk.start) for chunk in chunks(len(values), values.device)
    ]
    return torch.cat([torch.empty(0, dtype=torch.int32, device=values.device), *pieces])


def find_in_chunk(values: Tensor, wanted: int) -> Tensor:
    """Indices of the entries that equal `wanted`, int64, ascending. On a CPU NumPy is 5 times as fast as torch."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(values.numpy() == wanted))
    return (values == wanted).nonzero().squeeze(1)
