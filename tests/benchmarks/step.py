"""Compares a training step of PWFN and of qat with a step of the plain network, in one run on one machine.

    python tests/benchmarks/step.py                     on the CPU: two networks at 96 pixels, batch 64, one thread
    python tests/benchmarks/step.py --threads 2
    python tests/benchmarks/step.py --device cuda       ResNet-18/50 and DeiT-Tiny/Small at 224 pixels, batch 128

The plain step is torch's own: its SGD in the fused form that PWFN uses, its clipping, gradients per tensor. Both go
through `train_epoch`, with the same images, in turn (plain, nothing fixed, half fixed, ..., plain, ...), so that a busy
machine hits all of them; ratios are medians over the turns. `held` is what a method keeps between steps beyond the
plain one, in float32 numbers per weight of the fixed set; `peak` is the same at the worst moment of a step (GPU only).
Fails above the limits of 1.10 on the CPU, 1.05 on a GPU for PWFN, and 5.25 numbers per weight for PWFN (two
masks are a quarter each), 3 for qat.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from clustering import peak_bytes, reset_peak_bytes, timed
from printed import conditions

from pwfn.config import ModelConfig, PwfnConfig, QatConfig, TrainingConfig, WfnConfig
from pwfn.descent import Descent
from pwfn.methods.pwfn.method import PosteriorLearner
from pwfn.methods.pwfn.posterior import Posterior
from pwfn.methods.qat.learner import StraightThroughLearner
from pwfn.methods.qat.weights import SharedWeights
from pwfn.methods.wfn import Pull
from pwfn.methods.wfn.method import PulledLearner
from pwfn.models import build_network
from pwfn.parameters import FlatParameters, split_parameters
from pwfn.replicas import Replicas
from pwfn.training import Learner, train_epoch

NUM_CLASSES = 1000
CONFIG = TrainingConfig()


@dataclass(frozen=True)
class Setting:
    """The sizes with which one kind of machine is measured."""

    models: tuple[str, ...]
    image_size: int
    batch_size: int
    precisions: tuple[str, ...]
    steps: int
    """Number of steps in one turn; several if a single one is shorter than the noise of the clock."""
    limit: float


SETTINGS = {
    "cpu": Setting(("resnet10t", "vit_tiny_patch16_224"), 96, 64, ("float32",), 1, 1.10),
    "cuda": Setting(
        ("resnet18", "resnet50", "deit_tiny_patch16_224", "deit_small_patch16_224"),
        224, 128, ("bfloat16", "float32"), 20, 1.05,
    ),
}  # fmt: skip


class PlainStep:
    """A learner that trains in the usual way: gradients per tensor, torch's clipping and optimiser."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.optimizer = torch.optim.SGD(
            network.parameters(), CONFIG.lr, CONFIG.momentum, weight_decay=CONFIG.weight_decay, fused=True
        )

    def prepare(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad()

    def penalty(self, loss: Tensor) -> Tensor:
        """Add nothing."""
        return torch.zeros_like(loss)

    def step(self) -> None:
        """Clip and update."""
        parameters = list(self.network.parameters())
        on_gpu = parameters[0].device.type == "cuda"
        torch.nn.utils.clip_grad_norm_(parameters, CONFIG.clip_norm or 0.0, foreach=on_gpu)
        self.optimizer.step()


def pwfn_step(network: nn.Module, share_fixed: float) -> PosteriorLearner:
    """Make the learner of PWFN in the paper's setting, with a random share of the weights fixed."""
    posterior = Posterior(network, PwfnConfig())
    generator = torch.Generator(posterior.mu.device).manual_seed(0)
    posterior.fixed.copy_(
        torch.rand(posterior.num_weights, device=posterior.mu.device, generator=generator) < share_fixed
    )
    descent = Descent(
        posterior.values, posterior.gradient, CONFIG, num_steps=1000, replicas=Replicas(), held=posterior.held()
    )
    return PosteriorLearner(posterior, descent, generator)


def qat_step(network: nn.Module, **config: Any) -> StraightThroughLearner:
    """Make the learner of straight-through training, at the start of a stage."""
    method = QatConfig(weighting="plain", **config)
    sets = split_parameters(network)
    weights = SharedWeights(sets, method)
    weights.start_stage_(method.sizes[0], None)
    return StraightThroughLearner(
        network, weights, weights.descent(CONFIG, num_steps=1000, replicas=Replicas()), num_steps=1000
    )


def wfn_step(network: nn.Module, share_fixed: float) -> PulledLearner:
    """Make the learner of WFN with the pull, with a random share of the weights fixed to 16 values."""
    sets = split_parameters(network)
    flat = FlatParameters([*sets.fixable.values(), *sets.rest.values()])
    weights = flat.values[: sets.num_fixable]
    generator = torch.Generator(weights.device).manual_seed(0)
    held = torch.zeros_like(flat.values, dtype=torch.bool)
    held[: len(weights)] = torch.rand(len(weights), device=weights.device, generator=generator) < share_fixed
    method = WfnConfig()
    largest = float(weights.abs().max())
    pull = Pull(
        np.linspace(-largest, largest, 16), temperature=method.temperature, zero_distance=method.zero_distance,
        largest=largest, device=weights.device,
    )  # fmt: skip
    descent = Descent(flat.values, flat.gradient, CONFIG, num_steps=1000, replicas=Replicas(), held=held)
    return PulledLearner(network, descent, flat, ~held[: len(weights)], pull, method.regularization_ratio)


VARIANTS: dict[str, tuple[Callable[[nn.Module], Learner], float]] = {
    "PWFN, nothing fixed": (lambda network: pwfn_step(network, 0.0), 5.25),
    "PWFN, half fixed": (lambda network: pwfn_step(network, 0.5), 5.25),
    "qat, 8 values": (lambda network: qat_step(network, num_values=8), 3.0),
    "qat, 16 values": (lambda network: qat_step(network, num_values=16), 3.0),
    "qat, 64 values, rate": (lambda network: qat_step(network, num_values=64, rate_strength=0.02), 3.0),
}
"""The steps that are measured: how the learner is made, and how many float32 numbers per weight it may keep."""


def main() -> None:
    """Print the table; fail above a limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--batch-size", type=int, help="images of a step, instead of the device's own")
    parser.add_argument("--limit", type=float, help="ratio that passes, instead of the device's own")
    parser.add_argument("--models", nargs="+", help="timm names instead of the device's own")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    setting = SETTINGS[device.type]
    changes = {"limit": arguments.limit, "batch_size": arguments.batch_size}
    setting = dataclasses.replace(setting, **{name: value for name, value in changes.items() if value is not None})
    print(conditions(arguments.device, arguments.threads))
    print(f"{setting.image_size} pixels, batch {setting.batch_size}; ratio: median, smallest to largest turn\n")
    print("| network | precision | step | plain ms | its ms | ratio | held | peak |\n|" + "---|" * 8)
    missed = False
    for name in arguments.models or setting.models:
        for precision in arguments.precisions or setting.precisions:
            missed |= measure(name, precision, device, setting, arguments.turns)
    if missed:
        sys.exit(f"above {setting.limit} times the plain step, or above a method's numbers per weight")


def measure(name: str, precision: str, device: torch.device, setting: Setting, num_turns: int) -> bool:
    """Print the rows of one network and return whether a limit is exceeded."""
    model = ModelConfig(name=name)
    network = build_network(model, num_classes=NUM_CLASSES, in_channels=3, image_size=setting.image_size, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(setting.batch_size, 3, setting.image_size, setting.image_size, generator=generator)
    labels = torch.randint(NUM_CLASSES, (setting.batch_size,), generator=generator)
    images = images.to(device, memory_format=torch.channels_last)  # as the data comes
    batches = [(images, labels.to(device))] * setting.steps

    def turn(learner: Learner) -> float:
        def work() -> float:
            return train_epoch(learner, batches, precision=precision, replicas=Replicas(), label=name)

        return timed(device, work)[0] / setting.steps

    learners, held, peaks = {}, {}, {}
    makers: dict[str, Callable[[nn.Module], Learner]] = {"plain": PlainStep}
    for label, make in (makers | {label: make for label, (make, _) in VARIANTS.items()}).items():
        before = live_bytes()
        copied = copy.deepcopy(network).to(device)
        learners[label] = make(copied)
        turn(learners[label])  # makes the optimiser's state, loads kernels
        reset_peak_bytes(device)
        turn(learners[label])
        held[label], peaks[label] = live_bytes() - before, peak_bytes(device) - before
    seconds: dict[str, list[float]] = {label: [] for label in learners}
    for _ in range(num_turns):
        for label, learner in learners.items():
            seconds[label].append(turn(learner))
    num_weights = split_parameters(network).num_fixable
    missed = False
    for label, (_, max_floats) in VARIANTS.items():
        ratios = [ours / plain for ours, plain in zip(seconds[label], seconds["plain"], strict=True)]
        floats, peak = ((each[label] - each["plain"]) / 4 / num_weights for each in (held, peaks))
        print(
            f"| {name} | {precision} | {label} | {1e3 * median(seconds['plain']):.1f} | "
            f"{1e3 * median(seconds[label]):.1f} | {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | "
            f"{floats:.2f} | {f'{peak:.2f}' if device.type == 'cuda' else '-'} |",
            flush=True,
        )
        missed |= median(ratios) > setting.limit or floats > max_floats + 0.01
    return missed


def live_bytes() -> int:
    """Return the bytes of all tensors that exist, each storage counted once."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


if __name__ == "__main__":
    main()
