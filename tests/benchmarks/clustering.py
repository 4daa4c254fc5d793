"""Measures the time and memory of one clustering round, in one run on one machine.

    python tests/benchmarks/clustering.py                         1e5, 1e6, 5.7e6 and 25e6 weights (minutes, 2 GB)
    python tests/benchmarks/clustering.py --sizes 1e5 1e6 --threads 2
    python tests/benchmarks/clustering.py --device cuda

A network is ten layers, Gaussian and Laplace in turn, of standard deviation 0.02 to 0.1, with 0.3 % biases of standard
deviation 0.7 and sigma as PWFN initialises it. It goes through the ten rounds of the paper's schedule without training
between them. Times are means over the ten rounds: CPU time of a single thread, which other work on the machine disturbs
least, or wall time with more threads or a GPU. `sort` is torch.sort of the mu that each round was given. The dense
implementation is the slow transcription of the tests, one round at `--dense-size` weights.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "methods" / "pwfn" / "clustering"))
sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from printed import conditions
from slow_clustering import slow_cluster_round

from pwfn.config import PWFN_FRACTIONS, PwfnConfig
from pwfn.methods.pwfn.clustering import cluster_round
from pwfn.methods.pwfn.posterior import initial_sigma

NUM_LAYERS = 10
BIAS_SHARE = 0.003
Result = TypeVar("Result")

OPTIONS: dict[str, Any] = {"radius": 1.0, "radius_growth": 2.0, "b": 7}
COLUMNS = ("weights", "cluster", "apply", "both", "sort", "sort/cluster", "extra", "values", "10 rounds")
UNITS = ("", "ns/w", "ns/w", "ns/w", "ns/w", "", "B/w", "", "s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--sizes", nargs="+", type=lambda text: int(float(text)), default=[10**5, 10**6, 5_700_000, 25 * 10**6]
    )
    parser.add_argument("--dense-size", type=lambda text: int(float(text)), default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(conditions(arguments.device, arguments.threads))
    print("".join(f"{name:>14}" for name in COLUMNS))
    print("".join(f"{unit:>14}" for unit in UNITS))
    for num_weights in arguments.sizes:
        print(row(num_weights, torch.device(arguments.device)), flush=True)
    print(compare_with_dense(arguments.dense_size))


def row(num_weights: int, device: torch.device) -> str:
    """Measure ten rounds at one size; memory is the largest of any round."""
    mu, sigma = (tensor.to(device) for tensor in realistic_weights(num_weights, seed=0))
    cluster_round(mu[:1000], sigma[:1000], fraction=1.0, **OPTIONS)  # loads kernels
    cluster_seconds = apply_seconds = sort_seconds = 0.0
    extra_bytes = 0
    for fraction in PWFN_FRACTIONS:
        sort_seconds += timed(device, lambda: torch.sort(mu))[0]
        held_bytes = reset_peak_bytes(device)
        seconds, clustered = timed(device, partial(cluster_round, mu, sigma, fraction=fraction, **OPTIONS))
        cluster_seconds += seconds
        apply_seconds += timed(device, partial(clustered.apply_, mu, sigma, "std_mu"))[0]
        extra_bytes = max(extra_bytes, peak_bytes(device) - held_bytes)
    per_weight = 1e9 / num_weights / len(PWFN_FRACTIONS)
    cluster, apply, sort = cluster_seconds * per_weight, apply_seconds * per_weight, sort_seconds * per_weight
    cells = f"{num_weights:14,}{cluster:14.1f}{apply:14.1f}{cluster + apply:14.1f}{sort:14.1f}{sort / cluster:14.2f}"
    num_values = len(clustered.codebook.values)
    return f"{cells}{extra_bytes / num_weights:14.1f}{num_values:14}{cluster_seconds + apply_seconds:14.3f}"


def compare_with_dense(num_weights: int) -> str:
    """Run one round of both implementations; exit if they differ."""
    mu, sigma = realistic_weights(num_weights, seed=1)
    options = {"fraction": 0.9, **OPTIONS}
    cpu = torch.device("cpu")
    slow_seconds, slow = timed(cpu, lambda: slow_cluster_round(mu.numpy(), sigma.numpy(), **options))
    fast_seconds, fast = timed(cpu, lambda: cluster_round(mu, sigma, **options))
    if not np.array_equal(slow.cluster_of_weight, fast.cluster_of_weight.numpy()):
        raise RuntimeError("the fast clustering differs from the dense one")
    ratio = slow_seconds / fast_seconds
    return f"dense C x N at {num_weights:,} weights, 90 % fixed: {slow_seconds:.3f} s, {ratio:.0f} times as long"


def realistic_weights(num_weights: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Draw mu and sigma with the size and the distribution of a network's weights."""
    generator = torch.Generator().manual_seed(seed)
    mus, sigmas = [], []
    for layer, std in enumerate(np.linspace(0.02, 0.1, NUM_LAYERS)):
        size = num_weights * (layer + 1) // NUM_LAYERS - num_weights * layer // NUM_LAYERS
        num_biases = int(size * BIAS_SHARE)
        weights = torch.randn(size - num_biases, generator=generator)
        if layer % 2:
            uniform = torch.rand(len(weights), generator=generator).clamp_(1e-6, 1 - 1e-6)
            weights = torch.distributions.Laplace(0.0, 0.5**0.5).icdf(uniform)
        biases = torch.randn(num_biases, generator=generator) * 0.7
        for tensor in (weights * std, biases):
            mus.append(tensor)
            sigmas.append(initial_sigma(tensor, PwfnConfig()) if len(tensor) else tensor)
    return torch.cat(mus).float(), torch.cat(sigmas).float()


def timed(device: torch.device, work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that a call takes, a GPU's work included, and its result."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    synchronize(device)
    start = clock()
    result = work()
    synchronize(device)
    return clock() - start, result


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_bytes(device: torch.device) -> int:
    """Reset the peak of memory and return the memory in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)  # freed memory must not hide what is taken next
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_bytes("VmHWM")


def resident_bytes(field: str) -> int:
    """Return a field of this process's memory as Linux reports it, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
