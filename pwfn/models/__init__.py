"""Networks: timm's and our own, their weights, and how images are prepared for them."""

from typing import TYPE_CHECKING, Any

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports timm)

if TYPE_CHECKING:
    from pwfn.models.build import build_network, preprocessing_of
    from pwfn.models.checkpoints import load_checkpoint

__all__ = ["build_network", "load_checkpoint", "preprocessing_of"]

_MODULES = {"build_network": "build", "load_checkpoint": "checkpoints", "preprocessing_of": "build"}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: to load an exported network takes no configuration, only our networks."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
