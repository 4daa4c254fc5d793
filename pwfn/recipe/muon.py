"""Muon on a CPU: timm's optimiser that moves each matrix by the orthogonal matrix next to its averaged gradient."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

import torch
from timm.optim import muon
from torch import Tensor


def use_float32_where_bfloat16_is_slow() -> None:
    """Have timm's Muon compute in float32 on a CPU that has no bfloat16 (AVX2 alone).

    Muon takes its matrices to bfloat16, and timm has no option for it. Such a CPU multiplies bfloat16 matrices without
    its vector units: in the training of a small transformer that was a third of each step. Float32 is more exact.
    A torch that was built without oneDNN cannot say, and gets float32 too.
    """
    original = inspect.unwrap(muon.zeropower_via_newtonschulz)

    @wraps(original)
    def orthogonalise(gradient: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if gradient.device.type == "cpu" and not _has_bfloat16():
            kwargs["dtype"] = torch.float32
        orthogonal: Tensor = original(gradient, *args, **kwargs)
        return orthogonal

    muon.zeropower_via_newtonschulz = orthogonalise


def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices with its vector units."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
