"""Networks: timm's and our own, their weights, and how images are prepared for them."""

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports timm)
from pwfn.models.build import build_network, preprocessing_of
from pwfn.models.checkpoints import load_checkpoint

__all__ = ["build_network", "load_checkpoint", "preprocessing_of"]
