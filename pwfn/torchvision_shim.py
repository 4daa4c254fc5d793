"""Makes `import torchvision` (and so `import timm`) work with a torch that has no CUDA. Import this before either.

PyPI's Linux wheels of torchvision are built for CUDA. With a CPU build of torch their compiled operators cannot be
loaded. torchvision tolerates that except for `nms` and `qnms`, because its Python code registers functions for these
operators, which do not exist then. If their two schemas are declared, transforms, datasets, models and all of timm
work; only the compiled operators themselves (`torchvision.ops.nms`, `torchvision.io`) are missing. If the operators can
be loaded, this module changes nothing.

Checked with torchvision 0.28 and 0.29 over torch 2.13.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _missing_operators() -> list[str]:
    return [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]


def _load_compiled_operators() -> None:
    """Load torchvision's library as its own import does; to load it again later has no effect."""
    spec = importlib.util.find_spec("torchvision")  # finds the package without importing it
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for library in Path(folder).glob("_C*"):
            if library.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
                with contextlib.suppress(OSError):
                    torch.ops.load_library(library)  # type: ignore[no-untyped-call]


def _declare_missing_operators() -> torch.library.Library | None:
    if _missing_operators():
        _load_compiled_operators()
    missing = _missing_operators()
    if not missing:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in missing:
        library.define(name + SCHEMA)  # type: ignore[no-untyped-call]
    return library


_declared = _declare_missing_operators()  # the declarations live as long as this object
