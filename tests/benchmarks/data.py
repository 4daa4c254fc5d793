"""Measures how long opening data and waiting for it takes, as a ratio to the simplest way, in one run.

python tests/benchmarks/data.py --files 1330000
python tests/benchmarks/data.py --files 130000 --parquet ../shared/data/cifar10
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from pwfn.config import DataConfig
from pwfn.data import Preprocessing, open_source

CLASSES = 1000


def clocked(name: str, work: Callable[[], object]) -> tuple[object, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    spent = time.process_time() - cpu
    print(f"{name:<34} {spent:7.2f} s of CPU, {time.perf_counter() - wall:7.2f} s")
    return result, spent


def make_files(root: Path, num_files: int) -> None:
    """Make empty files: only names and sizes are read."""
    for part, num in (("train", num_files * 26 // 27), ("val", num_files // 27)):
        for label in range(CLASSES):
            folder = root / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(num // CLASSES):
                os.close(os.open(f"{folder}/n{label:08d}_{number}.JPEG", os.O_CREAT))


def walk(root: Path) -> list[str]:
    """List files in order, as torchvision's ImageFolder does."""
    return [
        f"{place}/{name}"
        for part in ("train", "val")
        for folder in sorted((root / part).iterdir())
        for place, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
        if name.lower().endswith((".jpg", ".jpeg", ".png"))
    ]


def folder(num_files: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_files(root, num_files)
        paths, plain = clocked("os.walk, sorted", lambda: walk(root))
        source, ours = clocked(
            "open_source, with splits", lambda: open_source(DataConfig(name="imagefolder", root=place), seed=0)
        )
        _, digest = clocked("fingerprint", source.fingerprint)
        print(
            f"{len(paths):,} files: listing takes {ours / plain:.2f} of os.walk, the fingerprint {digest / plain:.2f}"
        )


def parquet(root: str) -> None:
    """Compare with decoding every image of the table by Pillow, one after another: no way can take less."""

    def plain() -> None:
        for part in ("train", "test"):
            cells = pq.read_table(f"{root}/{part}.parquet", columns=["img"])["img"]
            for cell in cells:
                np.asarray(Image.open(BytesIO(cell["bytes"].as_py())))

    config = DataConfig(name="parquet", root=root)
    source, opened = clocked("open_source", lambda: open_source(config, seed=0))
    channels = source.in_channels
    side = source.images.picture(0).width
    preprocessing = Preprocessing((0.0,) * channels, (1.0,) * channels, side)
    _, held = clocked("prepare", lambda: source.prepare(preprocessing, torch.device("cpu")))
    _, decoded = clocked("Pillow alone", plain)
    print(f"{len(source.images):,} images: opened and held in {(opened + held) / decoded:.2f} of Pillow's time alone")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--parquet")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.files:
        folder(options.files)
    if options.parquet:
        parquet(options.parquet)


if __name__ == "__main__":
    main()
