"""The float network's training in timm's words: optimiser, schedule, mixing of images, loss, average, teacher."""

import pwfn.torchvision_shim  # noqa: F401  (before any module below imports timm)
