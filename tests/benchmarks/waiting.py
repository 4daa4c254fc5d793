"""How long training waits for batches of photos: the ratio to torchvision's ImageFolder and torch's DataLoader alone.

python tests/benchmarks/waiting.py --photos 2000 --workers 2
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import pwfn.torchvision_shim  # noqa: F401  (before torchvision)

# isort: split
import numpy as np
import torch
from PIL import Image
from printed import hardware
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, RandomHorizontalFlip

from pwfn.config import DataConfig
from pwfn.data import Preprocessing, open_source
from pwfn.training import Waiting

Batches = Iterable[tuple[Tensor, Tensor]]
Batcher = Callable[[int], Batches]
"""Gives the batches of one epoch, by its seed."""

WIDTH, HEIGHT = 400, 300
SIDE = 224
BATCH = 32
PREPARED = Preprocessing((0.5,) * 3, (0.5,) * 3, SIDE, crop_fraction=0.875)
PLAIN, OURS = "ImageFolder and DataLoader", "pwfn"


def make_photos(root: Path, num_photos: int) -> None:
    """Write JPEG files of coarse noise, enlarged: about as many bytes and as much work as photos of their size."""
    generator = np.random.default_rng(0)
    for number in range(num_photos):
        file = root / "train" / f"class{number % 10}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(file, quality=90)


def ours(root: str, workers: int) -> Batcher:
    config = DataConfig(name="imagefolder", root=root, test_fraction=0.1, loader_workers=workers)
    data = open_source(config, seed=0).prepare(PREPARED, torch.device("cpu"))
    return lambda seed: data.train_batches(batch_size=BATCH, seed=seed)


def plain(root: str, workers: int) -> Batcher:
    """The same pixels, flips and batches, as one writes them with torchvision, timm and torch alone."""
    prepare = create_transform(PREPARED.shape, mean=PREPARED.mean, std=PREPARED.std, crop_pct=PREPARED.crop_fraction,
                               interpolation=PREPARED.interpolation)  # fmt: skip
    images = ImageFolder(f"{root}/train", Compose([RandomHorizontalFlip(), prepare]))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return lambda seed: loader


class Epoch(NamedTuple):
    """Seconds per 1,000 images."""

    whole: float
    waited: float
    """For batches."""
    cpu: float
    """Of this process and the workers: what a busy machine changes less."""


def run(batches: Batches, step: float) -> Epoch:
    """Go through an epoch. A step sleeps: it leaves the CPU to the workers, as a step on a GPU does."""
    waiting, begun, cpu, num_images = Waiting(), time.perf_counter(), cpu_seconds(), 0
    for _, labels in waiting.counted(batches):
        num_images += len(labels)
        time.sleep(step)
    seconds = (time.perf_counter() - begun, waiting.lap(), cpu_seconds() - cpu)
    return Epoch(*(1000 * each / num_images for each in seconds))


def cpu_seconds() -> float:
    """Spent by this process, and by its children that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", type=float, default=0.0, help="seconds of a training step on a batch of 32")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{hardware('cpu')}; {options.photos:,} photos of {WIDTH}x{HEIGHT}, {options.workers} workers")
    with tempfile.TemporaryDirectory() as root:
        make_photos(Path(root), options.photos)
        epochs = {PLAIN: plain(root, options.workers), OURS: ours(root, options.workers)}
        found: dict[str, list[Epoch]] = {name: [] for name in epochs}
        for turn in range(options.turns):  # by turns: what else the machine does meets both
            for name, epoch in epochs.items():
                one = run(epoch(turn), options.step)
                found[name].append(one)
                share = (
                    f"{one.waited:7.2f} of {one.whole:7.2f} s per 1,000 images waited, {one.waited / one.whole:4.0%}"
                )
                print(f"{name:<26} {share}; {one.cpu:6.2f} s of CPU")
    waited, cpu = (
        median(getattr(one, what) for one in found[OURS]) / median(getattr(one, what) for one in found[PLAIN])
        for what in ("waited", "cpu")
    )
    print(
        f"steps of {options.step:g} s: pwfn waits {waited:.2f} times as long as ImageFolder and DataLoader, and takes "
        f"{cpu:.2f} times as much CPU"
    )


if __name__ == "__main__":
    main()
