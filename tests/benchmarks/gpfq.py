"""Measures the accuracy of two networks after GPFQ and MSQ, beside the published numbers.

    PWFN_DATA=/path/to/data python tests/benchmarks/gpfq.py                 both tables; minutes on a GPU, long on a CPU
    PWFN_DATA=/path/to/data python tests/benchmarks/gpfq.py mnist           the MLP 500-300, ternary; trains it first
    PWFN_DATA=/path/to/data python tests/benchmarks/gpfq.py cifar10 --test-images 2000 --calibration-images 1000

Accuracies are top-1 on test images, in percent. MNIST: the radius is C times the median |weight| of a layer, as in the
paper; published are the authors' logs (their network 98.24 in float, 784-500-300-10 with BatchNorm). CIFAR-10: the
pretrained ResNet-20, the radius C times the neurons' mean largest |weight|; "BN" is after its statistics were estimated
again, as a trial does it, on as many training images as GPFQ is calibrated on (those are not augmented).
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from pwfn.baseline import make_baseline
from pwfn.codebook import measure_codebook
from pwfn.config import (
    BaselineConfig,
    DataConfig,
    EvaluationConfig,
    GpfqConfig,
    ModelConfig,
    MsqConfig,
    TrialConfig,
    shared_data_folder,
)
from pwfn.methods import METHODS
from pwfn.replicas import Replicas
from pwfn.task import Task
from pwfn.trial.run import open_task

VARIANTS: list[dict[str, object]] = [
    {},
    {"sparsify": "l1", "threshold": 0.01},
    {"sparsify": "l0", "threshold": 0.01},
    {"rounding": "stochastic"},
    {"order": "activation"},
    {"shared_alphabet": True},
]
PUBLISHED_MNIST = {2: (95.48, 93.30), 3: (97.39, 90.69), 4: (97.34, 72.85), 5: (96.93, 60.00)}
"""Published accuracies with ternary alphabets, GPFQ and MSQ, for each C."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", nargs="?", choices=["mnist", "cifar10", "both"], default="both")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--calibration-images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = shared_data_folder()
    if folder is None:
        parser.error("needs real data: set PWFN_DATA")
    print(f"{arguments.device}, {arguments.threads} thread(s); ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    sizes = {"test_images": arguments.test_images, "calibration_images": arguments.calibration_images}
    for name, table in {"mnist": mnist_table, "cifar10": cifar10_table}.items():
        if arguments.table in (name, "both"):
            table(folder, torch.device(arguments.device), **sizes)


def mnist_table(folder: Path, device: torch.device, *, test_images: int, calibration_images: int) -> None:
    """Print the table of the MLP: ternary alphabets of growing radius."""
    task, weights = mnist_mlp(folder, device, test_images=test_images)
    print(f"\nMNIST, MLP 500-300, {test_images} test images, {calibration_images} calibration images")
    print(f"float {100 * task.measure('test').top1:.2f}")
    print("bits     C    GPFQ   published     MSQ   published")
    for scale, (gpfq_published, msq_published) in PUBLISHED_MNIST.items():
        gpfq, msq = (
            100 * quantized_accuracy(task, weights, method)[0] for method in ternary(float(scale), calibration_images)
        )
        print(f"log2 3 {scale:3}  {gpfq:6.2f}  {gpfq_published:10.2f}  {msq:6.2f}  {msq_published:10.2f}", flush=True)


def cifar10_table(folder: Path, device: torch.device, *, test_images: int, calibration_images: int) -> None:
    """Print the table of the pretrained ResNet-20: three and four bits."""
    task, weights = cifar_resnet20(folder, device, test_images=test_images, recalibration_images=calibration_images)
    print(f"\nCIFAR-10, ResNet-20, {test_images} test images, {calibration_images} calibration images")
    print(f"float {100 * task.measure('test').top1:.2f}", end="")
    task.recalibrate()
    print(f", BN {100 * task.measure('test').top1:.2f}")
    print("bits     C    GPFQ      BN     MSQ      BN")
    for bits in (2, 3, 4):
        for scale in (0.7, 1.0):
            methods = (
                GpfqConfig(bits=bits, scale=scale, calibration_images=calibration_images),
                MsqConfig(bits=bits, scale=scale),
            )
            cells = [100 * top1 for method in methods for top1 in quantized_accuracy(task, weights, method)[:2]]
            print(f"{bits:4}  {scale:4}" + "".join(f"  {cell:6.2f}" for cell in cells), flush=True)
    print("GPFQ, 4 bits, C 0.7        GPFQ      BN  zeros")
    plain = GpfqConfig(bits=4, scale=0.7, calibration_images=calibration_images)
    for change in VARIANTS:
        *cells, zeros = quantized_accuracy(task, weights, GpfqConfig.model_validate({**plain.model_dump(), **change}))
        name = ", ".join(f"{field} {value}" for field, value in change.items())
        print(f"{name:25}" + "".join(f"  {100 * cell:6.2f}" for cell in cells) + f"  {100 * zeros:5.1f}", flush=True)


def ternary(scale: float, calibration_images: int) -> tuple[GpfqConfig, MsqConfig]:
    """The paper's ternary alphabet, for both methods."""
    gpfq = GpfqConfig(bits=1, radius="median", scale=scale, calibration_images=calibration_images)
    return gpfq, MsqConfig(bits=1, radius="median", scale=scale)


def mnist_mlp(folder: Path, device: torch.device, *, test_images: int = 10_000) -> tuple[Task, Mapping[str, Tensor]]:
    """Train the float network."""
    config = TrialConfig(
        model=ModelConfig(name="mlp_500_300"),
        data=DataConfig(name="parquet", root=str(folder / "mnist"), augmentation="none", test_images=test_images),
        baseline=BaselineConfig(epochs=10, lr=0.05, lr_schedule="cosine"),
    )
    task = open_task(config, config.model, device, Replicas())
    return task, make_baseline(task).state


def cifar_resnet20(
    folder: Path, device: torch.device, *, test_images: int, recalibration_images: int
) -> tuple[Task, Mapping[str, Tensor]]:
    """Load the float network."""
    config = TrialConfig(
        model=ModelConfig(name="cifar_resnet20", checkpoint=str(folder / "resnet_cifar10" / "resnet20.safetensors")),
        data=DataConfig(
            name="parquet", root=str(folder / "cifar10"), augmentation="crop_flip", test_images=test_images
        ),
        evaluation=EvaluationConfig(recalibration_images=recalibration_images),
    )
    task = open_task(config, config.model, device, Replicas())
    return task, {name: tensor.clone() for name, tensor in task.network.state_dict().items()}


def quantized_accuracy(
    task: Task, weights: Mapping[str, Tensor], method: GpfqConfig | MsqConfig
) -> tuple[float, float, float]:
    """Quantise the float network; return top-1 without and with recalibrated BatchNorm, and the share of zeros."""
    config = task.config.model_copy(update={"method": method})
    network = open_task(config, ModelConfig(name=config.model.name), task.device, task.replicas).network
    network.load_state_dict(dict(weights))
    quantized = dataclasses.replace(task, network=network, config=config)
    codebook = METHODS[method.name](quantized).fix(0).codebook
    plain = quantized.measure("test").top1
    recalibrated = quantized.measure("test").top1 if quantized.recalibrate() else plain
    return plain, recalibrated, measure_codebook(codebook).sparsity


if __name__ == "__main__":
    main()
