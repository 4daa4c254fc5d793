"""Nothing that a network computed from its weights outlives the forward pass that computed it.

In evaluation mode several of timm's networks (LeViT, EfficientFormer, TinyViT, EfficientViT) keep the attention biases
that their first forward pass has gathered, one tensor for each device. Weights that change afterwards, because they
are loaded, fixed or recalibrated, would then not reach the next answer.
"""

from __future__ import annotations

from typing import Any

from torch import nn

CACHES = ("attention_bias_cache",)
"""Attributes of timm's modules that hold such tensors, dictionaries all."""


def keep_nothing_computed(network: nn.Module) -> None:
    """Let every module forget, after each forward pass, what it computed from its weights; in place."""
    for module in network.modules():
        if any(isinstance(getattr(module, name, None), dict) for name in CACHES):
            _forget(module)
            module.register_forward_hook(_forget, always_call=True)


def _forget(module: nn.Module, *_: Any) -> None:
    for name in CACHES:
        cache = getattr(module, name, None)
        if isinstance(cache, dict):
            cache.clear()
