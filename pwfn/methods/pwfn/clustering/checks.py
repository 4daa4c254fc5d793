"""Checks of the options and tensors that a clustering round is given."""

from __future__ import annotations

from math import inf, isfinite

import torch
from torch import Tensor

from pwfn.errors import DivergedWeightsError, UserError
from pwfn.methods.pwfn.clustering.intervals import LATTICE_BITS

LARGEST_B = 20
LARGEST_ORDER = 8
GROWTHS = ("alternate", "radius_first", "nearest")

MOST_WEIGHTS = 2**31 - 1
"""Indices are int32, and sums of 2^31 terms of 31 bits must fit into int64 (`clusters`)."""


def check_options(
    *, fraction: float, radius: float, radius_growth: float, b: int, max_order: int, recluster: str, growth: str
) -> None:
    """Check the options of `cluster_round`.

    Raises:
        UserError: an option with which a round is not defined or would never end.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction must be in (0, 1], but got {fraction}")
    if not (isfinite(radius) and radius > 0):
        raise UserError(f"radius must be positive and finite, but got {radius}")
    if not (isfinite(radius_growth) and radius_growth > 1):
        raise UserError(f"radius_growth must be finite and above 1, or a round never ends, but got {radius_growth}")
    if not 1 <= b <= LARGEST_B:
        raise UserError(f"b must be in 1..{LARGEST_B}, but got {b}")
    if not 1 <= max_order <= LARGEST_ORDER:
        raise UserError(f"max_order must be in 1..{LARGEST_ORDER}, but got {max_order}")
    if recluster not in ("all", "free"):
        raise UserError(f"recluster must be all or free, but got {recluster}")
    if growth not in GROWTHS:
        raise UserError(f"growth must be one of {', '.join(GROWTHS)}, but got {growth}")


def check_weights(mu: Tensor, sigma: Tensor, fixed: Tensor | None, b: int) -> None:
    """Check the tensors of a round.

    Raises:
        UserError: a wrong type or shape, tensors of different lengths or devices, or too many weights.
        DivergedWeightsError: NaN or infinity in mu or sigma, or mu beyond 2^(48-b).
    """
    check_per_weight("mu", mu, torch.float32)
    check_per_weight("sigma", sigma, torch.float32, like=mu)
    if fixed is not None:
        check_per_weight("fixed", fixed, torch.bool, like=mu)
    if len(mu) > MOST_WEIGHTS:
        raise UserError(f"mu has {len(mu)} weights; a round takes at most {MOST_WEIGHTS}")
    _check_range("mu", mu, 2.0 ** (LATTICE_BITS - b))
    _check_range("sigma", sigma, inf)


def check_per_weight(name: str, tensor: Tensor, dtype: torch.dtype, like: Tensor | None = None) -> None:
    """Check that a tensor is flat, of this type and, if `like` is given, of the same length and on the same device.

    Raises:
        UserError: it is not; names the tensor.
    """
    layout = f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
    if tensor.ndim != 1 or tensor.dtype != dtype:
        raise UserError(f"{name} must be a flat tensor of {dtype}, but is {layout}")
    if like is not None and (tensor.shape != like.shape or tensor.device != like.device):
        raise UserError(f"{name} must have shape {tuple(like.shape)} on {like.device}, but is {layout}")


def _check_range(name: str, tensor: Tensor, limit: float) -> None:
    if len(tensor) == 0:
        return
    low, high = (end.item() for end in tensor.aminmax())  # both NaN where one weight is
    if not (-limit < low and high < limit):
        within = "" if limit == inf else f" and within {limit:g}"
        raise DivergedWeightsError(f"{name} must be finite{within}, but goes from {low:g} to {high:g}")
