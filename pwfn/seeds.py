"""Random seeds. Each trial has one, from which every random draw derives its own: no random state is saved."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch's CPU, from which libraries draw; then put them back."""
    import numpy as np
    import torch

    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
