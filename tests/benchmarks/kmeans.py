"""Measures the accuracy of a pretrained network after k-means, and the time and memory of k-means.

    PWFN_DATA=/path/to/data python tests/benchmarks/kmeans.py accuracy         ResNet-20, all 10,000 test images
    PWFN_DATA=/path/to/data python tests/benchmarks/kmeans.py accuracy --test-images 2000 --seeds 3
    PWFN_DATA=/path/to/data python tests/benchmarks/kmeans.py accuracy --equalize layer
    python tests/benchmarks/kmeans.py speed                                    10^5 to 2.5 10^7 weights
    python tests/benchmarks/kmeans.py speed --sizes 1e5 1e6

Accuracies are top-1 in percent of the CIFAR-10 ResNet-20, one codebook for the network, no training; fewer test images
are the file's first. "BN" is after BatchNorm's statistics were estimated again, as a trial does it. "known" is an
independent run on the first 2,000 test images, of the network as it was loaded. The Fisher information is that of
`--fisher-images` training images; with several seeds its columns are means.

Speed is for the weights of `clustering.py` and 16 and 64 values, each time beside torch.sort of the same weights;
"extra" is the peak of memory beyond the weights and their importance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from clustering import peak_bytes, realistic_weights, reset_peak_bytes
from printed import conditions

from pwfn.config import DataConfig, KmeansConfig, ModelConfig, TrialConfig, shared_data_folder
from pwfn.methods.kmeans.method import Kmeans
from pwfn.methods.kmeans.values import kmeans_values, nearest_values
from pwfn.replicas import Replicas
from pwfn.task import Task
from pwfn.training import evaluate
from pwfn.trial.run import open_task

KNOWN = {("plain", 64): "91.8", ("plain", 32): "91.4", ("plain", 16): "90.3", ("plain", 8): "26"}
KNOWN |= {("fisher", 32): "91.2", ("fisher", 8): "58"}


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", choices=["accuracy", "speed"])
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--fisher-images", type=int, default=500)
    parser.add_argument("--values", type=int, nargs="+", default=[64, 32, 16, 8])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--equalize", choices=["none", "layer", "filter"], default="none")
    parser.add_argument("--sizes", nargs="+", type=lambda text: int(float(text)), default=[10**5, 10**6, 25 * 10**6])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(conditions(arguments.device, arguments.threads))
    if arguments.table == "speed":
        speed_table(arguments.sizes)
        return
    if shared_data_folder() is None:
        parser.error("needs real data: set PWFN_DATA")
    accuracy_table(arguments)


def accuracy_table(arguments: argparse.Namespace) -> None:
    """Print the float network's row, then one row per number of values."""
    print(f"CIFAR-10, ResNet-20, {arguments.test_images:,} test images, Fisher information of", end=" ")
    print(f"{arguments.fisher_images:,} training images, {arguments.seeds} seed(s), equalize: {arguments.equalize}")
    print("values" + "     plain      BN   known" + "    fisher      BN   known")
    print(" float  " + row(measure(open_network("plain", 1, arguments, seed=0), arguments.test_images)), flush=True)
    for num_values in arguments.values:
        cells = []
        for weighting, seeds in (("plain", 1), ("fisher", arguments.seeds)):
            runs = [quantized(weighting, num_values, arguments, seed=seed) for seed in range(seeds)]
            cells.append(row([mean(column) for column in zip(*runs, strict=True)]))
            cells.append(f"{KNOWN.get((weighting, num_values), '-'):>8}")
        print(f"{num_values:6}  " + "".join(cells), flush=True)


def row(accuracies: Sequence[float]) -> str:
    """Format accuracies in percent."""
    return "  " + "".join(f"{100 * top1:8.2f}" for top1 in accuracies)


def quantized(weighting: str, num_values: int, arguments: argparse.Namespace, *, seed: int) -> tuple[float, float]:
    """Measure the network with the values of k-means, as `measure` does."""
    task = open_network(weighting, num_values, arguments, seed=seed)
    Kmeans(task).fix(0)
    return measure(task, arguments.test_images)


def measure(task: Task, num_images: int) -> tuple[float, float]:
    """Return the top-1 accuracy of the present network, and of the network with BatchNorm recalibrated."""
    as_it_is = top1(task, num_images)
    task.recalibrate()
    return as_it_is, top1(task, num_images)


def open_network(weighting: str, num_values: int, arguments: argparse.Namespace, *, seed: int) -> Task:
    """Load the float network and its data."""
    folder = shared_data_folder()
    assert folder is not None
    config = TrialConfig(
        model=ModelConfig(
            name="cifar_resnet20",
            checkpoint=str(folder / "resnet_cifar10" / "resnet20.safetensors"),
            equalize=arguments.equalize,
        ),
        data=DataConfig(name="parquet", root=str(folder / "cifar10"), augmentation="crop_flip", split_seed=0),
        method=KmeansConfig.model_validate(
            {"num_values": num_values, "weighting": weighting, "fisher_images": arguments.fisher_images}
        ),
        seed=seed,
    )
    return open_task(config, config.model, torch.device(arguments.device), Replicas()).ready()


def top1(task: Task, num_images: int) -> float:
    """Measure top-1 accuracy on the first test images."""
    batches = islice(task.batches("test", batch_size=500), -(-num_images // 500))
    return evaluate(task.network, batches, precision="float32", replicas=task.replicas).top1


def speed_table(sizes: Sequence[int]) -> None:
    """Print one row per size, number of values and weighting."""
    print(f"{'weights':>12}{'values':>8}{'weighting':>11}{'k-means':>10}{'sort':>9}{'ratio':>8}{'extra':>9}")
    print(f"{'s':>41}{'s':>9}{'B/w':>17}")
    for size in sizes:
        weights = realistic_weights(size, seed=0)[0].numpy()
        fisher = np.random.default_rng(0).exponential(size=size).astype(np.float32) ** 3
        sort_seconds = min(seconds(lambda w=weights: torch.sort(torch.from_numpy(w))) for _ in range(2))
        for num_values in (16, 64):
            for weighting, importance in (("plain", None), ("fisher", fisher)):
                start = reset_peak_bytes(torch.device("cpu"))
                took = seconds(lambda n=num_values, w=weights, i=importance: share(w, n, i))
                extra = (peak_bytes(torch.device("cpu")) - start) / size
                cells = f"{took:10.2f}{sort_seconds:9.2f}{took / sort_seconds:8.1f}{extra:9.0f}"
                print(f"{size:12,}{num_values:8}{weighting:>11}{cells}", flush=True)


def share(weights: np.ndarray, num_values: int, importance: np.ndarray | None) -> np.ndarray:
    """Return the value of every weight."""
    return nearest_values(weights, kmeans_values(weights, num_values, importance))


def seconds(work: Callable[[], object]) -> float:
    """Return the elapsed seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
