"""One integer seed per trial; everything random is derived from it by name, so no random state needs saving."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """Derive a seed in [0, 2^63) from what it is for; the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device, *parts: int | str) -> torch.Generator:
    """Make a generator on a device, seeded by what it is for."""
    import torch  # late: a search space derives seeds, and must load in a moment

    return torch.Generator(device).manual_seed(derive_seed(*parts))
