"""Functions on flat buffers that are one kernel each on a GPU: the arithmetic of a training step, written once.

Such a function is plain torch, and a CPU runs it as it is. On a GPU each of its operations alone would read and write
whole buffers; `torch.compile` makes one kernel of them, which reads what the function is given once and writes what it
changes once. The numbers are those of the same operations, except that a GPU may round a product and a sum together.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class _Switch:
    """Whether functions are compiled in this process."""

    is_on = True


def fuse(is_on: bool) -> None:
    """Say whether this process compiles the functions below, or runs them one operation after the other."""
    _Switch.is_on = is_on


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Make one kernel of a function whose tensors lie on a GPU; on a CPU nothing changes.

    The function may change its tensors in place and may return sums over all numbers; everything else in it is
    elementwise, and it asks for no number on the host. No gradient is computed through it. (The function itself must
    not have `torch.no_grad` as a decorator: all functions that have it are one to the compiler, which has a limit on
    the variants of one function.) Where this machine cannot compile (no Triton, no C compiler), a
    warning says so once, and the function runs as it is: slower, with the same result.
    """
    compiled: Callable[P, R] | None = None

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal compiled
        if not _Switch.is_on or not _is_on_gpu(args):
            with torch.no_grad():
                return function(*args, **kwargs)
        if compiled is None:
            compiled = torch.compile(function, fullgraph=True, dynamic=True)
        try:
            with torch.no_grad():
                return compiled(*args, **kwargs)
        except Exception as error:
            if not _is_of_the_compiler(error):
                raise
            # Nothing has run yet: the buffers are as they were.
            words = str(error).strip() or type(error).__name__
            log.warning("training steps are not compiled for this GPU, and slower: %s", words.splitlines()[0])
            _Switch.is_on = False
            with torch.no_grad():
                return function(*args, **kwargs)

    return run


def _is_on_gpu(args: tuple[Any, ...]) -> bool:
    """Whether the first tensor among the arguments is on a GPU."""
    return next((arg.device.type == "cuda" for arg in args if isinstance(arg, Tensor)), False)


def _is_of_the_compiler(error: Exception) -> bool:
    """Whether an error was raised by the compiler, and not by a kernel that ran."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, TorchDynamoException | FailOnRecompileLimitHit)
