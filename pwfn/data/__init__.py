"""Images and labels: sources, splits, and batches on the device."""

from typing import TYPE_CHECKING, Any

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports torchvision)
from pwfn.data.contract import Data, Preprocessing

if TYPE_CHECKING:
    from pwfn.data.source import Source, open_source

__all__ = ["Data", "Preprocessing", "Source", "open_source"]


def __getattr__(name: str) -> Any:
    """Import what opens data when it is asked for: to load a network takes neither pyarrow nor scikit-learn."""
    if name not in ("Source", "open_source"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pwfn.data import source

    return getattr(source, name)
