"""Muon: each matrix moves by the orthogonal matrix next to its averaged gradient (Jordan et al. 2024; timm's code)."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import wraps
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import torch
from timm.optim import Muon, muon
from torch import Tensor


def make_muon(groups: Iterable[dict[str, Any]], *, lr: float, momentum: float, fallback_lr_scale: float) -> Muon:
    """Make timm's Muon without weight decay; what is no matrix, in its parameters, gets AdamW.

    Args:
        groups: parameter groups of torch's optimisers.
        lr: learning rate of groups without their own. An entry of a matrix moves, in a step, by about 0.2 times it
            (root mean square), as with AdamW (Liu et al. 2025, arXiv 2502.16982, section 2.2).
        momentum: share that the average of the gradients keeps in a step.
        fallback_lr_scale: factor on the learning rate for what gets AdamW.
    """
    use_float32_where_bfloat16_is_slow()
    return Muon(groups, lr=lr, weight_decay=0.0, momentum=momentum, nesterov=True, fallback_lr_scale=fallback_lr_scale)


def use_float32_where_bfloat16_is_slow() -> None:
    """Have timm's Muon compute in float32 on a CPU that has no bfloat16 (AVX2 alone).

    Muon takes its matrices to bfloat16, and timm has no option for it. Such a CPU multiplies bfloat16 matrices without
    its vector units: in the training of a small transformer that was a third of each step. Float32 is more exact.
    """
    original = inspect.unwrap(muon.zeropower_via_newtonschulz)

    @wraps(original)
    def orthogonalise(gradient: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if gradient.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            kwargs["dtype"] = torch.float32
        orthogonal: Tensor = original(gradient, *args, **kwargs)
        return orthogonal

    muon.zeropower_via_newtonschulz = orthogonalise
