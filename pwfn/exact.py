"""Whether float32 products on a GPU are float32, or have factors that are rounded to TF32, ten bits of significand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def allow_tf32(is_allowed: bool) -> None:
    """Allow or forbid TF32 in this process, for convolutions, recurrent layers and matrix products.

    torch itself allows it for cuDNN's convolutions and forbids it for matrix products.
    """
    for backend in _backends():
        backend.fp32_precision = "tf32" if is_allowed else "ieee"


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, products of float32 numbers are computed in float32, on a GPU too.

    For comparisons whose tolerance is that of float32. Products in TF32 are off by 1e-3.
    """
    before = [backend.fp32_precision for backend in _backends()]
    try:
        allow_tf32(False)
        yield
    finally:
        for backend, precision in zip(_backends(), before, strict=True):
            backend.fp32_precision = precision


def _backends() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    cuda: Any = torch.backends.cuda
    return cudnn.conv, cudnn.rnn, cuda.matmul
