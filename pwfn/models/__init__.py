"""Networks: timm's and our own, their weights, and how images are prepared for them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports timm)

if TYPE_CHECKING:
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

_MODULES = {
    "Loading": "understood",
    "UnderstoodNetwork": "understood",
    "build_network": "build",
    "check_has_weights": "build",
    "check_head_is_trained": "build",
    "describe_coverage": "understood",
    "describe_loading": "understood",
    "load_checkpoint": "checkpoints",
    "preprocessing_of": "preparation",
    "read_state": "checkpoints",
    "record_preparation_": "preparation",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: to load an exported network takes no configuration, only our networks."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
