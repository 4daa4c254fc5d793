"""GPTQ for all neurons of one layer in parallel, with the outputs of the float network as its target.

GPFQ lets the next feature make good for an error, GPTQ all features that are still free (Frantar et al., ICLR 2023,
arXiv 2210.17323). Its target is here, as in GPTAQ (Li et al., ICML 2025, arXiv 2504.02692) and Qronos (Zhang et al.,
2025, arXiv 2505.11695), what the layer gives in the float network, so that it also makes good for earlier layers. At
the end each weight is chosen once more beside the final levels of all others, as in QuantEase (Behdin et al., 2023,
arXiv 2309.01885).

With X, X~, G and H of `path_following`, levels q of a neuron with weights w are to make

    ||w X - q X~||^2 + d ||w - q||^2 = q (H + d I) q^T - 2 q (G w + d w)^T + a constant

small, where d is a share of the mean of H's diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pwfn.methods.gpfq.alphabet import Quantize

DAMPING = 0.01
"""d as a share of the mean of H's diagonal, as in GPTQ (section 3.3)."""
MAX_SWEEPS = 5
"""Most times that each weight is chosen again."""
BLOCK_FEATURES = 128
"""Number of features that form a block. What a block changes for all others is one matrix product, which is faster than
one product per feature; the size changes the results only by rounding."""


def gptq_levels(cross: Tensor, gram: Tensor, weights: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
    """Quantise weights with the least error of a layer's outputs that the greedy search finds.

    Args:
        cross: G, float64 `(groups, features, features)`.
        gram: H, of the same shape.
        weights: float64 `(groups, neurons, features)`.
        quantizers: the quantiser of each feature.

    Returns:
        The levels, of the shape of the weights.
    """
    energies = gram.diagonal(dim1=-2, dim2=-1)
    damping = DAMPING * energies.mean(dim=-1)
    damping = torch.where(damping > 0, damping, 1.0)[:, None, None]  # no input at all: the nearest levels
    target = weights @ cross.mT + damping * weights
    gram = gram + damping * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    levels = _compensated_levels(target, gram, quantizers)
    for _ in range(MAX_SWEEPS):
        if not _choose_again_(levels, target, gram, quantizers):
            break
    return levels


def _compensated_levels(target: Tensor, gram: Tensor, quantizers: Sequence[Quantize]) -> Tensor:
    """Quantise one feature after the other; all later ones move to where the error is smallest (GPTQ, algorithm 1).

    They start from the weights without restriction that have the least error.
    """
    lower = torch.linalg.cholesky(gram)
    free = torch.cholesky_solve(target.mT, lower).mT.contiguous()
    factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    levels = torch.zeros_like(target)
    errors = torch.zeros_like(target)
    for block in blocks(target.shape[-1]):
        for t in range(block.start, block.stop):
            levels[..., t] = quantizers[t](free[..., t].contiguous())
            errors[..., t] = (free[..., t] - levels[..., t]) / factor[:, None, t, t]
            inside = slice(t + 1, block.stop)
            free[..., inside] -= errors[..., t, None] * factor[:, None, t, inside]
        free[..., block.stop :] -= errors[..., block] @ factor[:, block, block.stop :]
    return levels


def _choose_again_(levels: Tensor, target: Tensor, gram: Tensor, quantizers: Sequence[Quantize]) -> bool:
    """Give each weight, one feature after the other, its best level beside the present levels of all others.

    Returns:
        Whether a level changed.
    """
    gradients = target - levels @ gram
    before = levels.clone()
    for block in blocks(target.shape[-1]):
        for t in range(block.start, block.stop):
            energy = gram[:, None, t, t]
            chosen = quantizers[t](levels[..., t] + gradients[..., t] / energy)
            changes = chosen - levels[..., t]
            levels[..., t] = chosen
            inside = slice(t + 1, block.stop)
            gradients[..., inside] -= changes[..., None] * gram[:, None, t, inside]
        changes = levels[..., block] - before[..., block]
        gradients[..., block.stop :] -= changes @ gram[:, block, block.stop :]
    return not torch.equal(levels, before)


def blocks(num_features: int) -> Iterator[slice]:
    """Cut the features into blocks."""
    for start in range(0, num_features, BLOCK_FEATURES):
        yield slice(start, min(start + BLOCK_FEATURES, num_features))
