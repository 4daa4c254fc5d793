"""Networks: timm's and our own, their weights, and how images are prepared for them."""

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports timm)
from pwfn.models.build import build_network
from pwfn.models.checkpoints import load_checkpoint
from pwfn.models.preparation import preprocessing_of, record_preparation_

__all__ = ["build_network", "load_checkpoint", "preprocessing_of", "record_preparation_"]
