"""Networks: timm's and our own, their weights, and how images are prepared for them."""

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports timm)
from pwfn.models.build import build_network, check_has_weights, check_head_is_trained
from pwfn.models.checkpoints import load_checkpoint, read_state
from pwfn.models.preparation import preprocessing_of, record_preparation_
from pwfn.models.understood import Loading, UnderstoodNetwork, describe_coverage, describe_loading

__all__ = [
    "Loading",
    "UnderstoodNetwork",
    "build_network",
    "check_has_weights",
    "check_head_is_trained",
    "describe_coverage",
    "describe_loading",
    "load_checkpoint",
    "preprocessing_of",
    "read_state",
    "record_preparation_",
]
