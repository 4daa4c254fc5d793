"""Measures a step of WFN's pull and a round of its assignment, in one run on one machine.

    python tests/benchmarks/wfn.py                      1e5, 1e6 and 1.1e7 weights on one thread
    python tests/benchmarks/wfn.py --device cuda

Weights are Gaussian of standard deviation 0.1. The pull is towards the values of a first round (few) and towards
the densest grid of the paper (649 values); a step of Adam and, where a matrix stays below 0.25 GB, the full softmin of
all centres stand beside it. `needed` is how many nearest centres the worst of 1,000 weights would need for an error of
1e-4. The assignment goes through the ten rounds of the paper at delta 0.01, without training.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "methods" / "wfn"))
sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from clustering import synchronize
from printed import conditions
from slow_wfn import slow_expected_distances

from pwfn.config import WFN_FRACTIONS, TrainingConfig
from pwfn.descent import Descent
from pwfn.methods.wfn import Pull, assign, centres
from pwfn.replicas import Replicas

ZERO_DISTANCE = 2.0**-7
REPETITIONS = 5
NUM_WARM_UPS = 3
MOST_MATRIX_BYTES = 0.25e9  # autograd holds several of them
COLUMNS = (
    "weights", "values", "needed", "pull", "full softmin", "Adam", "pull/Adam", "sort", "10 rounds", "groups", "left",
)  # fmt: skip
UNITS = ("", "", "", "ns/w", "ns/w", "ns/w", "", "ns/w", "ns/w", "", "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = [10**5, 10**6, 11 * 10**6]
    parser.add_argument("--sizes", nargs="+", type=lambda text: int(float(text)), default=sizes)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(conditions(arguments.device, arguments.threads))
    print("".join(f"{name:>14}" for name in COLUMNS))
    print("".join(f"{unit:>14}" for unit in UNITS))
    for num_weights in arguments.sizes:
        generator = torch.Generator().manual_seed(0)
        weights = (0.1 * torch.randn(num_weights, generator=generator)).to(arguments.device)
        rounds = assignment_columns(weights)
        for values in (centres(1, spacing=0.1, **grid(weights)), centres(20, spacing=0.0075, **grid(weights))):
            print("".join(f"{text:>14}" for text in (*pull_columns(weights, values), *rounds)), flush=True)


def grid(weights: Tensor) -> dict[str, float]:
    """Return the smallest value and the upper end of the grid, as arguments of `centres`."""
    return {"zero_distance": ZERO_DISTANCE, "largest": float(weights.abs().max())}


def pull_columns(weights: Tensor, values: np.ndarray) -> tuple[str, ...]:
    """Measure one step of the pull, of the full softmin and of Adam."""
    pull = Pull(values, temperature=0.05, device=weights.device, **grid(weights))
    ours = seconds(lambda: pull(weights), weights.device)
    full = None
    if 4 * len(values) * len(weights) < MOST_MATRIX_BYTES:
        every = torch.from_numpy(values).float().to(weights.device)

        def full_step() -> None:
            leaf = weights.clone().requires_grad_()
            slow_expected_distances(leaf, every, 0.05, ZERO_DISTANCE).mean().backward()

        full = seconds(full_step, weights.device)
    config = TrainingConfig(optimizer="adam", weight_decay=0.0, clip_norm=0.5)
    descent = Descent(weights.clone(), 0.01 * weights, config, num_steps=1, replicas=Replicas())
    adam = seconds(descent.step, weights.device)
    per_weight = 1e9 / len(weights)
    return (
        f"{len(weights):,}",
        str(len(values)),
        str(max(num_needed(values, weight) for weight in weights[weights.abs() > ZERO_DISTANCE][:1000].tolist())),
        f"{ours * per_weight:.1f}",
        "-" if full is None else f"{full * per_weight:.0f}",
        f"{adam * per_weight:.1f}",
        f"{ours / adam:.1f}",
    )


def num_needed(values: np.ndarray, weight: float) -> int:
    """Count the nearest values that a truncated softmin needs for a relative error of 1e-4."""
    distance = np.sort(np.abs(weight - values) / abs(weight))
    share = np.exp(-distance / 0.05)
    partial = (share * distance).cumsum() / share.cumsum()
    return 2 + int(np.flatnonzero(np.abs(partial / partial[-1] - 1) > 1e-4).max(initial=-1))


def assignment_columns(weights: Tensor) -> tuple[str, ...]:
    """Measure ten rounds without training."""
    sort = seconds(lambda: weights.sort(), weights.device)
    fixed, values, num_groups = torch.zeros_like(weights, dtype=torch.bool), set(), 0
    synchronize(weights.device)
    start = time.perf_counter()
    for index, fraction in enumerate(WFN_FRACTIONS):
        need = ceil(fraction * len(weights)) - int(fixed.sum())
        groups = assign(weights, fixed, need=need, allowed=0.01 * (10 - index), zero_distance=ZERO_DISTANCE)
        num_groups += len(groups)
        for group in groups:
            fixed[group.places] = True
            values.add(group.value)
    synchronize(weights.device)
    total = time.perf_counter() - start
    per_weight = 1e9 / len(weights)
    return f"{sort * per_weight:.1f}", f"{total * per_weight:.0f}", str(num_groups), str(len(values))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a few runs, after some warm-up runs."""
    times = []
    for _ in range(NUM_WARM_UPS + REPETITIONS):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[NUM_WARM_UPS:]))


if __name__ == "__main__":
    main()
