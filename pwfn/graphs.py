"""A training step as one CUDA graph: its kernels are recorded once, and from then on launched together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pwfn.errors import UserError

EAGER_STEPS = 3
"""Number of steps before the one that is recorded: they compile kernels, choose algorithms and make what lasts."""


class GraphedStep:
    """A training step for batches of one shape; batches of another shape are trained on as usual.

    The step of a small network is hundreds of short kernels, and a host launches them more slowly than a GPU runs them.
    A graph is kernels, their addresses and their numbers. So `step` must ask for the same in every call, and must read
    what changes from tensors that stay where they are.

    Args:
        step: takes images and labels on the GPU, and returns a scalar there.
        before: what the host does before a step, and must not be recorded.
        after: what the host does in `step` behind the last kernel; it is called after each launch of the graph.
        generators: those that `step` draws from, beside torch's own.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor], Tensor],
        *,
        before: Callable[[], None],
        after: Callable[[], None],
        generators: Iterable[torch.Generator],
    ) -> None:
        self._step = step
        self._before = before
        self._after = after
        self._generators = generators
        self._num_eager = 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = self._loss = torch.empty(0)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step; return what it returns, in memory of its own.

        Raises:
            UserError: the network asks for something that a graph cannot hold.
        """
        self._before()
        if self._graph is None and self._num_eager >= EAGER_STEPS:
            self._graph = self._recorded(images, labels)
        elif self._graph is None or images.shape != self._images.shape:
            return self._eager(images, labels)
        else:
            self._images.copy_(images)
            self._labels.copy_(labels)
            self._after()
        self._graph.replay()
        return self._loss.clone()

    def _eager(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step on the stream that is recorded later, as torch's notes on graphs ask for."""
        self._num_eager += 1
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            loss = self._step(images, labels)
        present.wait_stream(self._stream)
        return loss

    def _recorded(self, images: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph:
        """Record a step without taking it: no kernel runs, but what the host does in a step is done."""
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            # Other threads go on: the loader's, which pins memory, would spoil the recording in the default mode.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._loss = self._step(self._images, self._labels)
        except RuntimeError as error:
            # After an error inside, the end of the recording fails as well.
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if "captur" not in str(first):
                raise first from error
            reason = str(first).splitlines()[0]
            raise UserError(
                f"training.cuda_graph: a step of this network cannot be recorded ({reason}); use false"
            ) from error
        return graph
