"""Float32 that is float32: a GPU otherwise rounds the factors of convolutions to TF32, ten bits of significand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, convolutions and matrix products of float32 numbers are computed in float32, on a GPU too.

    For comparisons whose tolerance is that of float32. cuDNN's default is TF32, whose products are off by 1e-3.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
