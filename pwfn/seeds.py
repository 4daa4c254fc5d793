"""Random seeds. Each trial has one, from which every random draw derives its own: no random state is saved."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """Derive a seed in [0, 2^63) from parts that name its purpose; it is the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device, *parts: int | str) -> torch.Generator:
    """Make a generator on a device, with the seed that `derive_seed` gives for these parts."""
    import torch  # imported here: a search space derives seeds too, and must load without torch

    return torch.Generator(device).manual_seed(derive_seed(*parts))
