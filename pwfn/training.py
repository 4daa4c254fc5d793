"""Training for one epoch, measuring accuracy, and estimating BatchNorm's statistics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pwfn.criterion import cross_entropy_of_labels
from pwfn.descent import Descent
from pwfn.errors import NonFiniteLossError
from pwfn.graphs import GraphedStep
from pwfn.parameters import FlatParameters, buffers_of, copied, restore_buffers_, under
from pwfn.replicas import Replicas

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images, float32 `(batch, channels, height, width)`, and labels, int64 `(batch,)`, on the network's device."""

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes logits `(batch, classes)`, the images and their labels, and returns the mean loss, a scalar."""

STEPS_BETWEEN_CHECKS = 50
"""Number of training steps between two checks of the losses; at each check the CPU waits for a GPU."""


class Learner:
    """A network and the way in which it is trained: here plain gradient descent; methods override parts of it.

    Args:
        network: that is trained.
        descent: on the buffers behind it.
        flats: the buffers that hold its parameters, which receive the gradients.
    """

    def __init__(self, network: nn.Module, descent: Descent, flats: Sequence[FlatParameters]) -> None:
        self.network = network
        self.descent = descent
        self.flats = flats

    def prepare(self) -> None:
        """Forget the gradients before the next forward pass; methods also set the weights here."""
        for flat in self.flats:
            flat.forget_()

    def collect(self) -> None:
        """Bring the gradients of the backward passes into their buffers."""
        for flat in self.flats:
            flat.collect_()

    def penalty(self, loss: Tensor) -> Tensor:
        """Return the penalty that is added to the loss, a scalar; here zero."""
        return torch.zeros_like(loss)

    def step(self) -> None:
        """Update from the gradients of the backward passes."""
        self.collect()
        self.descent.step()

    def generators(self) -> Sequence[torch.Generator] | None:
        """What a step draws from, beside torch's own generators, if a graph can hold it; else None.

        It can if every step asks the device for the same, and the host only moves the schedule on, in its end.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Copy to the CPU what `load_state` needs to go on after a step; `own.` begins what each replica has itself."""
        own = {f"own.{name}": buffer for name, buffer in buffers_of(self.network).items()}
        return {
            **copied({"values": self.descent.values, **own}),
            **{f"descent.{name}": tensor for name, tensor in self.descent.state().items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned, on the same buffers: the same steps follow, to the last bit."""
        self.descent.values.copy_(state["values"])
        restore_buffers_(self.network, under("own.", state))
        self.descent.load_state(under("descent.", state))


@dataclass(frozen=True)
class Accuracy:
    """Shares of images, in [0, 1]."""

    top1: float
    """Share of images whose true class has the highest score."""
    top5: float
    """Share of images whose true class is among the five highest scores."""


def train_epoch(
    learner: Learner,
    batches: Batches,
    *,
    precision: str,
    replicas: Replicas,
    label: str,
    criterion: Criterion = cross_entropy_of_labels,
    micro_batches: int = 1,
    losses: Sequence[Tensor] = (),
    after_step: Callable[[list[Tensor]], None] = lambda losses: None,
    cuda_graph: bool = False,
) -> float:
    """Train on every batch once and return the mean loss over all replicas.

    `losses` are those of the epoch's earlier steps, taken in another process; `after_step` is called with all of them.

    With several micro-batches, each batch passes through the network in that many parts. Their gradients add up to the
    gradient of the batch; only BatchNorm's statistics are those of the parts.

    With `cuda_graph` a GPU's steps are launched as a whole where that is possible; see `TrainingConfig.cuda_graph`.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite; names the step and `label`, the epoch. All replicas raise
            it together.
        UserError: the network asks for something that a graph cannot hold.
    """
    network = learner.network.train()
    losses = list(losses)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        learner.prepare()
        parts = zip(images.chunk(micro_batches), labels.chunk(micro_batches), strict=True)
        shares = [
            _backward(learner, *part, criterion=criterion, num_images=len(labels), precision=precision)
            for part in parts
        ]
        learner.step()
        return torch.stack(shares).sum()

    take_step: Callable[[Tensor, Tensor], Tensor] = step
    generators = learner.generators() if cuda_graph and replicas.world_size == 1 else None
    if generators is not None and learner.descent.is_fused:
        descent = learner.descent
        take_step = GraphedStep(step, before=descent.write_lrs_, after=descent.scheduler.step, generators=generators)
    for images, labels in batches:
        losses.append(take_step(images, labels))
        if len(losses) % STEPS_BETWEEN_CHECKS == 0:
            _check_finite(losses, replicas, label)
        after_step(losses)
    replicas.average_buffers_(network)
    return _check_finite(losses, replicas, label)


def _backward(
    learner: Learner, images: Tensor, labels: Tensor, *, criterion: Criterion, num_images: int, precision: str
) -> Tensor:
    """Add the gradient of a part of a batch of `num_images` images; return its share of the mean loss."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        loss = criterion(learner.network(images), images, labels)
    if len(labels) < num_images:
        loss = loss * (len(labels) / num_images)
    loss = loss + learner.penalty(loss)  # of this share, so that the shares of all parts add up
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _check_finite(losses: list[Tensor], replicas: Replicas, label: str) -> float:
    if not losses:
        return 0.0
    means = replicas.mean_(torch.stack(losses))
    finite = means.isfinite()
    if not finite.all():
        step = int(finite.int().argmin())
        raise NonFiniteLossError(f"the training loss is {means[step].item()} in {label}, step {step + 1}")
    return float(means.mean())


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Batches, *, precision: str, replicas: Replicas) -> Accuracy:
    """Measure the accuracy over all batches of all replicas, in evaluation mode; NaN if there are no images.

    Among classes with exactly the same score the true class counts as the last, so that a network whose outputs are all
    equal, or NaN, does not seem accurate.
    """
    network.eval()
    hits: Tensor | None = None
    for images, labels in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(images)
        found = count_hits(logits, labels)
        hits = found if hits is None else hits + found
    return _accuracy(hits, network, replicas)


@torch.inference_mode()
def evaluate_ensemble(
    network: nn.Module, draw_: Callable[[], None], batches: Batches, *, draws: int, replicas: Replicas
) -> Accuracy:
    """Measure the accuracy of the mean prediction over several draws of the weights (PWFN, section 4).

    Args:
        network: is left with the weights of the last draw.
        draw_: gives the network the weights of the next draw.
        batches: all images of this replica.
        draws: number of draws for each batch.
        replicas: the accuracy is that over the images of all replicas.
    """
    network.eval()
    hits: Tensor | None = None
    for images, labels in batches:
        mean = torch.zeros((), device=images.device)
        for _ in range(draws):
            draw_()
            mean = mean + network(images).softmax(dim=1)
        found = count_hits(mean, labels)
        hits = found if hits is None else hits + found
    return _accuracy(hits, network, replicas)


def _accuracy(hits: Tensor | None, network: nn.Module, replicas: Replicas) -> Accuracy:
    """Compute the accuracy over all replicas from this replica's `count_hits`, or from None if it had no images."""
    if hits is None:
        hits = torch.zeros(3, dtype=torch.int64, device=next(network.parameters()).device)
    top1, top5, num_images = replicas.sum_(hits).tolist()
    return Accuracy(top1 / num_images, top5 / num_images) if num_images else Accuracy(float("nan"), float("nan"))


def count_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Count top-1 hits, top-5 hits and images, int64 `(3,)`, for scores `(images, classes)`; ties as in `evaluate`."""
    true = scores.gather(1, labels[:, None])
    rank = scores.shape[1] - 1 - (scores < true).sum(dim=1)  # other classes that do not score less, or are NaN
    return torch.stack([(rank < 1).sum(), (rank < 5).sum(), torch.ones_like(rank).sum()])


def batchnorm_layers(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """List the BatchNorm layers of a network that keep running statistics."""
    norms = (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if norm.track_running_stats]


@torch.no_grad()
def recalibrate_batchnorm(network: nn.Module, batches: Batches, *, replicas: Replicas, micro_batches: int = 1) -> bool:
    """Estimate BatchNorm's running statistics again, as the mean over these batches of training images.

    This is needed after weights were fixed, because the statistics were collected under weight noise and with weights
    that have changed since.

    With several micro-batches each batch passes in that many parts, and the mean is over the parts, as in training.

    Returns:
        Whether the network has a BatchNorm with running statistics.
    """
    layers = batchnorm_layers(network)
    if not layers:
        return False
    momenta = [layer.momentum for layer in layers]
    network.eval()
    calls: Counter[nn.Module] = Counter()

    def weigh(layer: Any, _: Any) -> None:
        """Let this batch count as much as each before it; momentum None does so too, but waits for the device."""
        calls[layer] += 1
        layer.momentum = 1 / calls[layer]

    hooks = [layer.register_forward_pre_hook(weigh) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    for images, _ in batches:
        for part in images.chunk(micro_batches):
            network(part)
    for layer, momentum, hook in zip(layers, momenta, hooks, strict=True):
        layer.momentum = momentum
        hook.remove()
    replicas.average_buffers_(network)
    network.eval()
    return True


class Waiting:
    """Counts the seconds that training waits for batches: for decoding, augmentation and copies.

    Work that a GPU does on batches in its own memory is queued, so that nothing waits for it; it counts as training.
    """

    def __init__(self) -> None:
        self._seconds = 0.0

    def counted(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same batches, and count the seconds until each arrives."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self._seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def lap(self) -> float:
        """Return the seconds counted since construction or the last lap."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Stopwatch:
    """Measures elapsed seconds; it first waits until a GPU has finished its queued work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._last = self._now()

    def lap(self) -> float:
        """Return the seconds since construction or the last lap."""
        last, self._last = self._last, self._now()
        return self._last - last

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
