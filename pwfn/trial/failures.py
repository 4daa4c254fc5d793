"""Why a trial failed: by its own fault, for lack of memory, or because the machine under it broke.

torch is imported where an error is looked at: a driver, which only passes rows on, does without it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pwfn.errors import MachineError, TrialError, UserError, first_line

OUT_OF_MEMORY = (
    "out of memory",  # CUDA's allocator and driver ("CUDA error: out of memory"), NCCL's, HIP's
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED and those of their neighbours
    "cudaerrormemoryallocation",
    "cublas_status_not_initialized",  # what cublasCreate says where it finds no memory for its handle
    "cudnn_status_not_initialized",
    "unable to find a valid cudnn algorithm",  # every algorithm wants more workspace than there is
    "unable to find an engine to execute this computation",
    "defaultcpuallocator",  # torch on the CPU raises a plain RuntimeError
    "cannot allocate memory",
)
"""What libraries say, in lower case, when memory runs out; few of them raise torch.OutOfMemoryError."""

BROKEN_DEVICE = (
    "cuda error",  # all that torch reports of the runtime: illegal address, device-side assert, ECC, launch failure
    "cuda driver error",
    "device-side assert",
    "uncorrectable ecc error",
    "status_execution_failed",  # of cuBLAS, cuDNN, cuSOLVER and cuSPARSE
    "status_internal_error",
    "status_mapping_error",
    "cufft_exec_failed",
    "hip error",
    "no cuda gpus are available",
    "unable to determine the device handle",
)
"""What they say when the GPU or this process's context on it is broken; then everything that follows fails, too."""

BROKEN_NETWORK = (
    "nccl",
    "gloo",
    "connection closed by peer",
    "connection reset by peer",
    "socket timeout",
    "processgroup",
)
"""What they say when the workers of a trial no longer reach each other."""


def failure(error: BaseException) -> dict[str, Any]:
    """Turn the error that ended a trial into columns: the class of the failure and its message in one line."""
    own = isinstance(error, TrialError | UserError) and not ran_out_of_memory(error)
    name = "" if own else f"{type(error).__name__}: "
    lines = str(error).strip().splitlines() or [""]
    return {"state": "failed", "failure_class": failure_class(error), "failure_message": name + lines[0]}


def failure_class(error: BaseException) -> str:
    """Name the class of a failure: what the error says of itself, else memory, the machine, or simply an error."""
    if isinstance(error, TrialError):
        return error.failure_class
    if ran_out_of_memory(error):
        return "oom"
    if isinstance(error, UserError):
        return "user"
    return class_of_machine(error) or "error"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, means that memory ran out."""
    import torch

    return any(
        isinstance(each, torch.OutOfMemoryError | MemoryError)
        or (isinstance(each, OSError) and each.errno == errno.ENOMEM)
        or (isinstance(each, RuntimeError) and _says(each, OUT_OF_MEMORY))
        for each in _causes(error)
    )


def class_of_machine(error: BaseException) -> str | None:
    """Name what broke under a trial, `device`, `network` or the error's own class; None if the machine is not at fault.

    An error of the user stays one, unless it was raised from one of these.
    """
    import torch
    import torch.distributed as dist

    for each in _causes(error):
        if isinstance(each, MachineError):
            return each.failure_class
        if isinstance(each, UserError | TrialError):
            continue
        if isinstance(each, dist.DistError) or (isinstance(each, RuntimeError) and _says(each, BROKEN_NETWORK)):
            return "network"
        if isinstance(each, torch.AcceleratorError) or (isinstance(each, RuntimeError) and _says(each, BROKEN_DEVICE)):
            return "device"
    return None


def as_machine_error(error: BaseException) -> MachineError | None:
    """Return the machine's error that an error is or stands for; None if the machine is not at fault."""
    if isinstance(error, MachineError):
        return error
    found = None if ran_out_of_memory(error) else class_of_machine(error)
    return None if found is None else MachineError(f"{type(error).__name__}: {first_line(error)}", found)


@contextmanager
def building() -> Iterator[None]:
    """Inside, memory that runs out is the machine's fault: no smaller parts of a batch would help.

    Raises:
        MachineError: of class `memory`.
    """
    try:
        yield
    except (RuntimeError, MemoryError, UserError) as error:
        if not ran_out_of_memory(error):
            raise
        what = f"no memory to build the network and its data: {type(error).__name__}: {first_line(error)}"
        raise MachineError(what, "memory") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in phrases)
