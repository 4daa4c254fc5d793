"""The parts of `first_gpu.sh` that are Python: what only a GPU can show, and what it is compared with.

    python tests/benchmarks/first_gpu_parts.py fused|trials|graphs|clustering

`first_gpu.sh` says where the modules lie. Without a GPU the parts run on the pretended device of `tests/cuda`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext

from devices import IS_PRETENDED, with_gpu  # before torch

# isort: split
import test_fused
import torch
from cases import CASES, COMPARED, GRAPHED, config, graphed_config, run
from clustering import timed
from clustering_cases import random_case
from step import pwfn_step
from torch.utils._pytree import tree_leaves, tree_map

import pwfn.task
from pwfn.config import ModelConfig
from pwfn.methods.pwfn.clustering import cluster_round
from pwfn.models import build_network
from pwfn.replicas import Replicas
from pwfn.training import train_epoch


def fused() -> bool:
    """Compare every fused function, compiled for the GPU, with plain operations on the CPU."""
    is_good = True
    print("| function | largest difference | in units of the largest number times 2^-23 |\n|---|---|---|")
    for name, (function, make) in test_fused.CASES.items():
        (args, kwargs), (again, _) = make(), make()
        expected = (function(*args, **kwargs), args)
        with with_gpu():
            moved = tree_map(lambda each: each.to("cuda") if isinstance(each, torch.Tensor) else each, again)
            found = (function(*moved, **kwargs), moved)
            found = tree_map(lambda each: each.cpu() if isinstance(each, torch.Tensor) else each, found)
        pairs = zip(tensors(found), tensors(expected), strict=True)
        off = [
            (float((one.double() - other.double()).abs().max()), float(other.double().abs().max()))
            for one, other in pairs
        ]
        worst, ulps = max(difference for difference, _ in off), max(d / max(size, 1e-30) * 2**23 for d, size in off)
        print(f"| {name} | {worst:.2g} | {ulps:.1f} |", flush=True)
        is_good &= ulps <= 64
    return is_good


def tensors(structure: object) -> list[torch.Tensor]:
    return [each for each in tree_leaves(structure) if isinstance(each, torch.Tensor)]


@contextmanager
def no_waiting_in_steps():
    """Inside, torch raises where a training step makes the host wait for the device."""

    def guarded(batches):
        for batch in batches:
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield batch
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def without_waiting(learner, batches, **options):
        return train_epoch(learner, guarded(batches), **options)

    pwfn.task.train_epoch = without_waiting
    try:
        yield
    finally:
        pwfn.task.train_epoch = train_epoch


def trials() -> bool:
    """Run one small trial of every method on both devices; on a GPU no training step may wait."""
    is_good = True
    print("| trial | device | " + " | ".join(COMPARED) + " | peak MiB |\n" + "|---" * (len(COMPARED) + 3) + "|")
    for name, case in CASES.items():
        for device in ("cpu", "cuda"):
            is_real = device == "cuda" and not IS_PRETENDED
            with (
                with_gpu() if device == "cuda" else nullcontext(),
                no_waiting_in_steps() if is_real else nullcontext(),
            ):
                if is_real:
                    torch.cuda.reset_peak_memory_stats()
                row = run(config(**case), device)
            peak = f"{torch.cuda.max_memory_allocated() / 2**20:.0f}" if is_real else "-"
            cells = [f"{each:.5g}" if isinstance(each, float) else str(each) for each in map(row.get, COMPARED)]
            print(f"| {name} | {device} | " + " | ".join(cells) + f" | {peak} |", flush=True)
            is_good &= row["state"] == "complete"
    return is_good


def graphs() -> bool:
    """Run trials whose steps are launched as one graph, and without one; time the steps of a small network."""
    is_good = True
    print("| trial | graph | " + " | ".join(COMPARED) + " |\n" + "|---" * (len(COMPARED) + 2) + "|")
    for name in GRAPHED:
        rows = []
        for wished in (False, True):
            with with_gpu():
                row = run(graphed_config(name, wished), "cuda")
            rows.append([f"{each:.5g}" if isinstance(each, float) else str(each) for each in map(row.get, COMPARED)])
            print(f"| {name} | {wished} | " + " | ".join(rows[-1]) + " |", flush=True)
            is_good &= row["state"] == "complete"
        if rows[0] != rows[1]:  # a GPU may add in another order, which changes last digits
            print(f"{name}: not the same row")
            is_good &= not IS_PRETENDED
    print("PWFN, cifar_resnet20, batch 128, bfloat16:")
    for wished in (False, True):
        seconds = seconds_of_a_step(wished)
        words = "not timed on the pretended device" if IS_PRETENDED else f"{1e3 * seconds:.2f} ms a step"
        print(f"{'with' if wished else 'without'} graph: {words}", flush=True)
    return is_good


def seconds_of_a_step(cuda_graph: bool) -> float:
    """Time a step of PWFN on a small network, in bfloat16, in an epoch of 200; a recording is a part of them."""
    num_steps, batch_size = (5, 2) if IS_PRETENDED else (200, 128)
    network = build_network(ModelConfig(name="cifar_resnet20"), num_classes=10, in_channels=3, image_size=32, seed=0)
    with with_gpu():
        images = torch.randn(batch_size, 3, 32, 32).to("cuda", memory_format=torch.channels_last)
        batches = [(images, torch.zeros(batch_size, dtype=torch.int64).to("cuda"))] * num_steps
        learner = pwfn_step(network.to("cuda"), 0.5)

        def epoch() -> float:
            return train_epoch(
                learner, batches, precision="bfloat16", replicas=Replicas(), label="one", cuda_graph=cuda_graph
            )

        epoch()  # compiles
        return timed(images.device, epoch)[0] / num_steps


def clustering() -> bool:
    """Cluster the same weights on both devices: every number must be the same, to the last bit."""
    differing = []
    for seed in range(20 if IS_PRETENDED else 200):
        case = random_case(seed)
        arrays = (case.mu, case.sigma, case.fixed)
        mu, sigma, fixed = (None if each is None else torch.from_numpy(each) for each in arrays)
        mode = "all" if fixed is None else "free"
        expected = cluster_round(mu, sigma, **case.options(), fixed=fixed, recluster=mode)
        with with_gpu():
            mu, sigma, fixed = (None if each is None else each.to("cuda") for each in (mu, sigma, fixed))
            found = cluster_round(mu, sigma, **case.options(), fixed=fixed, recluster=mode)
            places = found.cluster_of_weight.cpu()
        same = torch.equal(places, expected.cluster_of_weight) and found.radius_end == expected.radius_end
        if not (same and found.values.tolist() == expected.values.tolist()):
            differing.append(seed)
    print(f"clustering differs for the seeds {differing}" if differing else "clustering is the same to the last bit")
    return not differing


if __name__ == "__main__":
    parts = {"fused": fused, "trials": trials, "graphs": graphs, "clustering": clustering}
    sys.exit(not parts[sys.argv[1]]())
