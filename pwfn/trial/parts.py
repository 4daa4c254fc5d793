"""Smaller parts of a batch when memory runs out, in every phase of a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pwfn.config import OptimizationConfig, TrialConfig
from pwfn.errors import MachineError
from pwfn.replicas import Replicas
from pwfn.trial.failures import ran_out_of_memory
from pwfn.trial.opening import free_memory

Result = TypeVar("Result")


def in_smaller_parts(
    run: Callable[[int], Result], *, first: int, most_parts: int, note: Callable[[int], None], replicas: Replicas
) -> Result:
    """Call `run` with the number of parts in which batches pass through the network, twice as many if memory runs out.

    The gradients of the parts add up to the gradient of the batch, so it is still the same experiment. Before each
    further try the memory that this process keeps is given back.

    Args:
        run: what may run out of memory.
        first: parts to begin with.
        most_parts: images of the largest batch; more parts are no help.
        note: is told the new number of parts.
        replicas: one of several must end when it has noted the number, because the others would wait for it.
    """
    parts = first
    while True:
        try:
            return run(parts)
        except Exception as error:
            no_help = isinstance(error, MachineError) or 2 * parts > most_parts
            if no_help or not ran_out_of_memory(error):
                raise
            parts *= 2
            note(parts)
            if replicas.world_size > 1:
                raise
        free_memory()  # out of the handler, whose error holds all that its frames hold


def largest_batch(config: TrialConfig, optimization: OptimizationConfig, replicas: Replicas) -> int:
    """Images of the largest batch that passes through the network at once, on one replica."""
    return max(optimization.batch_size // replicas.world_size, config.evaluation.batch_size)
