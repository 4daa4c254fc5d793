"""Images and labels: sources, splits, and batches on the device."""

from typing import TYPE_CHECKING, Any

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports torchvision)
from pwfn.data.contract import Data, Preprocessing, Source

if TYPE_CHECKING:
    from pwfn.data.source import open_source

__all__ = ["Data", "Preprocessing", "Source", "open_source"]


def __getattr__(name: str) -> Any:
    """Import `open_source` when it is asked for: to load a network takes neither pyarrow nor scikit-learn."""
    if name != "open_source":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pwfn.data.source import open_source

    return open_source
