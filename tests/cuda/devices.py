"""The GPU of this machine, or the pretended device where PRETENDED_CUDA_GUARD is set; to be imported before torch."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

IS_PRETENDED = "PRETENDED_CUDA_GUARD" in os.environ
if IS_PRETENDED:
    import pretended_cuda


def with_gpu() -> AbstractContextManager[None]:
    """A context in which there is a GPU."""
    return pretended_cuda.pretended_cuda() if IS_PRETENDED else nullcontext()
