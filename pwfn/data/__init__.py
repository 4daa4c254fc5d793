"""Images and labels: sources, splits, and batches on the device."""

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports torchvision)
from pwfn.data.contract import Data, Preprocessing, Source
from pwfn.data.source import open_source

__all__ = ["Data", "Preprocessing", "Source", "open_source"]
