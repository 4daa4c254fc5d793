"""Large sets, decoded from image files batch by batch in worker processes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import Compose, RandomHorizontalFlip

from pwfn.config import DataConfig
from pwfn.data.contract import Data, Preprocessing, Source
from pwfn.data.fingerprint import digest_image_files, fingerprint
from pwfn.data.splits import draw_splits
from pwfn.errors import UserError

Key = tuple[int, int | None]
"""An image's row, and the seed of its augmentation or None without any."""


@dataclass(frozen=True)
class ImageFiles:
    """A torchvision set of `(image, label)` pairs, and its labels without opening an image."""

    name: str
    """For messages."""
    images: Any
    """Torchvision's own object; indexed by row, gives a Pillow image first."""
    labels: Tensor
    """int64 `(images,)`."""
    paths: list[str]
    """One for each image."""
    root: str
    """The folder below which they lie."""

    def content(self) -> str:
        """Digest the files, cheaper than reading them; a method, since spawned loader workers get this pickled."""
        return digest_image_files(self.paths, self.root)


class LoaderSource(Source):
    """Image files of any size: training images, from which validation is held out, and test images; RGB."""

    def __init__(
        self, config: DataConfig, pool: ImageFiles, test: ImageFiles, *, class_names: tuple[str, ...], seed: int
    ) -> None:
        splits = draw_splits(config, pool.labels, test.labels, seed)
        super().__init__(config, splits, class_names=class_names, in_channels=3, image_size=None)
        self.pool = pool
        self.test = test

    def fingerprint(self) -> dict[str, str]:
        """Describe the data; see `Source.fingerprint`."""
        return fingerprint(self.class_names, self.pool, self.test)

    def prepare(self, preprocessing: Preprocessing, device: torch.device) -> Data:
        """Choose the transforms; images are read when batches are asked for."""
        wanted = len(preprocessing.mean)
        if wanted != self.in_channels:
            raise UserError(
                f"{self.pool.name}: images have {self.in_channels} channels, but the network takes {wanted}"
            )
        return LoaderData(self, preprocessing, device)


class LoaderData(Data):
    """Batches from worker processes; each image's augmentation has its own seed, whichever process draws it."""

    def __init__(self, source: LoaderSource, preprocessing: Preprocessing, device: torch.device) -> None:
        splits = source.splits
        order = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        super().__init__(source.num_classes, order, preprocessing, device)
        plain, augmented = _transforms(source.config, preprocessing)
        self._pool = _TransformedImages(source.pool, plain, augmented)
        self._test = _TransformedImages(source.test, plain, augmented)
        self._num_workers = min(source.config.loader_workers, os.cpu_count() or 1)

    def train_batches(
        self, *, batch_size: int, seed: int, num_steps: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch; see `Data.train_batches`."""
        generator = torch.Generator().manual_seed(seed)
        rows = self._order["train"][torch.randperm(self.num_train, generator=generator)]
        seeds = torch.randint(2**62, (self.num_train,), generator=generator)
        parts = list(self._training_slices(batch_size, num_steps, rank, world_size))
        yield from self._load(self._pool, [rows[part] for part in parts], [seeds[part] for part in parts])

    def batches(
        self, split: str, *, batch_size: int, max_images: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split; see `Data.batches`."""
        images = self._test if split == "test" else self._pool
        indices = self._evaluation_indices(split, max_images, rank, world_size)
        rows = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        yield from self._load(images, rows, None)

    def _load(
        self, images: _TransformedImages, rows: list[Tensor], seeds: list[Tensor] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        on_gpu = self.device.type == "cuda"
        loader = DataLoader(
            images,
            batch_sampler=_Batches(rows, seeds),
            num_workers=self._num_workers,
            collate_fn=_collate,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else each iterator draws from the global one
        )
        for batch in loader:
            if isinstance(batch, _Broken):
                raise UserError(batch.message)
            pixels, labels = batch
            yield self._normalise(pixels.to(self.device, non_blocking=True)), labels.to(self.device, non_blocking=True)


def _transforms(config: DataConfig, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """Return timm's standard transforms to uint8 tensors: for measuring, and for training."""
    side, interpolation = preprocessing.image_size, preprocessing.interpolation
    plain = create_transform(side, interpolation=interpolation, crop_pct=preprocessing.crop_fraction, normalize=False)
    if config.augmentation == "none":
        return plain, plain
    if config.augmentation == "flip":
        return plain, Compose([RandomHorizontalFlip(), plain])
    crop = create_transform(side, is_training=True, interpolation=interpolation, color_jitter=None, normalize=False)
    return plain, crop


@dataclass(frozen=True)
class _Broken:
    """Stands for an image that cannot be read; an exception would reach the trial as a worker's traceback."""

    message: str


class _TransformedImages(Dataset[tuple[Tensor, int] | _Broken]):
    def __init__(self, files: ImageFiles, plain: Any, augmented: Any) -> None:
        self.files = files
        self.plain = plain
        self.augmented = augmented

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | _Broken:
        row, seed = key
        try:
            image = self.files.images[row][0].convert("RGB")
        except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
            return _Broken(f"{self.files.paths[row]}: not a readable image: {type(error).__name__}")
        label = int(self.files.labels[row])
        if seed is None:
            return self.plain(image), label
        with _seeded(seed):
            return self.augmented(image), label


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that the transforms draw from, and put them back."""
    before = random.getstate()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before)


class _Batches(Sampler[list[Key]]):
    def __init__(self, rows: list[Tensor], seeds: list[Tensor] | None) -> None:
        self.rows = rows
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch, rows in enumerate(self.rows):
            seeds = [None] * len(rows) if self.seeds is None else self.seeds[batch].tolist()
            yield list(zip(rows.tolist(), seeds, strict=True))


def _collate(items: list[tuple[Tensor, int] | _Broken]) -> tuple[Tensor, Tensor] | _Broken:
    pairs = []
    for item in items:
        if isinstance(item, _Broken):
            return item
        pairs.append(item)
    pixels, labels = zip(*pairs, strict=True)
    return torch.stack(pixels), torch.tensor(labels)
