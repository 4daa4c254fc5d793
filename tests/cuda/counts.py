"""Counts the kernels and the bytes of a training step on the pretended device, beyond those of a plain step."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pretended_cuda
import torch
from pretended_cuda import ledger
from step import PlainStep, pwfn_step, qat_step, wfn_step
from torch import nn

from pwfn.config import ModelConfig
from pwfn.models import build_network
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.training import Learner, train_epoch

VARIANTS: dict[str, Callable[[nn.Module], Learner]] = {
    "PWFN, nothing fixed": lambda network: pwfn_step(network, 0.0),
    "PWFN, half fixed": lambda network: pwfn_step(network, 0.5),
    "qat, 8 values": lambda network: qat_step(network, num_values=8),
    "qat, 16 values": lambda network: qat_step(network, num_values=16),
    "WFN, half fixed": lambda network: wfn_step(network, 0.5),
}


@dataclass(frozen=True)
class Counts:
    """What a step costs."""

    launches: int
    plain_launches: int
    floats: float
    """Float32 numbers moved beyond the plain step, per weight of the fixed set."""
    by_operation: dict[str, float]
    """The same, of each operation that differs."""


def step_counts(
    name: str,
    *,
    image_size: int,
    labels: Sequence[str] = tuple(VARIANTS),
    batch_size: int = 2,
    channels_last: bool = False,
) -> dict[str, Counts]:
    """Count one step of some variants, in bfloat16, on a network of this name; the plain one's weights lie as built."""
    network = build_network(ModelConfig(name=name), num_classes=10, in_channels=3, image_size=image_size, seed=0)
    num_weights = split_parameters(network).num_fixable
    images = torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    found: dict[str, tuple[Counter[str], Counter[str]]] = {}
    with pretended_cuda.pretended_cuda():
        batch = (
            images.to("cuda", memory_format=torch.channels_last),
            torch.zeros(batch_size, dtype=torch.int64).to("cuda"),
        )
        for label, make in {"plain": PlainStep, **{label: VARIANTS[label] for label in labels}}.items():
            copied = copy.deepcopy(network)
            if channels_last and label != "plain":
                copied.to(memory_format=torch.channels_last)
            learner = make(copied.to("cuda"))
            passed = []
            for num_steps in (1, 1, 2):  # the first makes the optimiser's state; an epoch has a part of its own
                ledger.clear()
                train_epoch(learner, [batch] * num_steps, precision="bfloat16", replicas=Replicas(), label=label)
                passed.append((_by_name(ledger.launches), _by_name(ledger.bytes)))
            found[label] = tuple(_minus(two, one) for one, two in zip(*passed[1:], strict=True))
    plain_launches, plain_bytes = found.pop("plain")
    return {
        label: Counts(
            sum(launches.values()),
            sum(plain_launches.values()),
            sum(_minus(moved, plain_bytes).values()) / 4 / num_weights,
            {op: n / 4 / num_weights for op, n in _minus(moved, plain_bytes).items() if abs(n) > 0.1 * num_weights},
        )
        for label, (launches, moved) in found.items()
    }


def _by_name(counter: Counter[tuple[str, str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (_, name), number in counter.items():
        found[name] += number
    return found


def _minus(one: Counter[str], other: Counter[str]) -> Counter[str]:
    return Counter({name: one[name] - other[name] for name in {*one, *other}})


def table(names: list[str]) -> str:
    """Count the steps of these networks; a table in Markdown."""
    lines = [
        "| network | step | launches, plain | launches | floats per weight beyond plain | channels last: launches | "
        "floats |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        as_built, changed = (step_counts(name, image_size=_image_size(name), channels_last=on) for on in (False, True))
        for label, counts in as_built.items():
            others = " | ".join(f"{each.launches} | {each.floats:.1f}" for each in (counts, changed[label]))
            lines.append(f"| {name} | {label} | {counts.plain_launches} | {others} |")
    return "\n".join(lines)


def _image_size(name: str) -> int:
    """Small images, which change no count: 224 pixels where the network takes no others."""
    return 224 if "patch" in name else 8 if name.startswith("digits") else 64
