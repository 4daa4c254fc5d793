"""Small sets, decoded once and held as bytes on the device: shuffling and augmentation are index arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from pwfn.config import DataConfig
from pwfn.data.contract import Data, Preprocessing, Source
from pwfn.data.fingerprint import fingerprint
from pwfn.data.splits import draw_splits
from pwfn.errors import UserError

MAX_BYTES = 4 * 2**30
"""A set whose decoded images take more is refused; an imagefolder streams it."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one size that can be read by row."""

    name: str
    """For messages."""
    labels: Tensor
    """int64 `(images,)`."""
    shape: tuple[int, int, int]
    """Channels, height and width of every image."""
    read: Callable[[Tensor], Tensor]
    """Rows, int64 and increasing, to uint8 `(rows, channels, height, width)` on the CPU."""
    content: Callable[[], str]
    """Digest of the images, cheaper than reading them."""


class MemorySource(Source):
    """Images that fit in memory: training images, from which validation is held out, and test images."""

    def __init__(
        self, config: DataConfig, pool: ImageSet, test: ImageSet, *, class_names: tuple[str, ...], seed: int
    ) -> None:
        _check_shapes(pool, test)
        channels, side, _ = pool.shape
        splits = draw_splits(config, pool.labels, test.labels, seed)
        super().__init__(config, splits, class_names=class_names, in_channels=channels, image_size=side)
        self.pool = pool
        self.test = test

    def fingerprint(self) -> dict[str, str]:
        """Describe the data; see `Source.fingerprint`."""
        return fingerprint(self.class_names, self.pool, self.test)

    def prepare(self, preprocessing: Preprocessing, device: torch.device) -> Data:
        """Decode the images of all splits and put them on the device."""
        self._check_network(preprocessing)
        pool_rows = torch.cat([self.splits.train, self.splits.validation]).sort().values
        test_rows = self.splits.test.sort().values
        _check_memory(self.pool, len(pool_rows) + len(test_rows))
        pool = _Pixels.read(self.pool, pool_rows, device)
        test = _Pixels.read(self.test, test_rows, device)
        order = {
            "train": torch.searchsorted(pool_rows, self.splits.train),
            "validation": torch.searchsorted(pool_rows, self.splits.validation),
            "test": torch.searchsorted(test_rows, self.splits.test),
        }
        pixels = {"train": pool, "validation": pool, "test": test}
        augmentation = Augmentation.from_config(self.config, self.pool.shape[-1])
        return MemoryData(self.num_classes, order, pixels, augmentation, preprocessing, device)

    def _check_network(self, preprocessing: Preprocessing) -> None:
        wanted, found = len(preprocessing.mean), self.in_channels
        if wanted != found:
            raise UserError(f"{self.pool.name}: images have {found} channels, but the network takes {wanted}")
        side, wanted = self.pool.shape[-1], preprocessing.image_size
        if self.config.image_size is None and side != wanted:
            choice = f"data.image_size to {side} (a network for that size) or {wanted} (images enlarged or reduced)"
            raise UserError(
                f"{self.pool.name}: images are {side}x{side}, but the network takes {wanted}x{wanted}; set {choice}"
            )


@dataclass(frozen=True)
class _Pixels:
    images: Tensor
    labels: Tensor

    @classmethod
    def read(cls, images: ImageSet, rows: Tensor, device: torch.device) -> _Pixels:
        return cls(images.read(rows).to(device), images.labels[rows].to(device))


@dataclass(frozen=True)
class Augmentation:
    """Random mirroring, and shifts by up to `max_shift` pixels in each direction; black comes in at the border."""

    flip: bool
    max_shift: int

    @classmethod
    def from_config(cls, config: DataConfig, side: int) -> Augmentation:
        """Shift by up to 1/8 of the side, at least a pixel."""
        return cls(config.augmentation != "none", max(1, side // 8) if config.augmentation == "crop_flip" else 0)

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw int64 `(3, images)` on the CPU: mirrored or not, rows down, columns to the right."""
        flips = torch.randint(2 if self.flip else 1, (num_images,), generator=generator)
        shifts = torch.randint(2 * self.max_shift + 1, (2, num_images), generator=generator)
        return torch.cat([flips[None], shifts])

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Mirror and shift `(batch, channels, height, width)` by `draws` `(3, batch)`, both on one device."""
        flips, down, right = draws
        num, channels, height, width = images.shape
        columns = torch.arange(width, device=images.device)
        columns = torch.where(flips[:, None] == 1, columns.flip(0), columns) + right[:, None]
        if self.max_shift:
            images = pad(images, (self.max_shift,) * 4)
            rows = torch.arange(height, device=images.device) + down[:, None]
            images = images.gather(2, rows[:, None, :, None].expand(num, channels, height, images.shape[3]))
        return images.gather(3, columns[:, None, None, :].expand(num, channels, height, width))


class MemoryData(Data):
    """Batches out of images on the device; nothing in the loop waits for the device."""

    def __init__(
        self,
        num_classes: int,
        order: dict[str, Tensor],
        pixels: dict[str, _Pixels],
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        device: torch.device,
    ) -> None:
        super().__init__(num_classes, order, preprocessing, device)
        self._pixels = pixels
        self._augmentation = augmentation
        self._preprocessing = preprocessing

    def train_batches(
        self, *, batch_size: int, seed: int, num_steps: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch; see `Data.train_batches`."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU: every device sees the same epoch
        shuffled = torch.randperm(self.num_train, generator=generator)
        rows = self._order["train"][shuffled].to(self.device)
        draws = self._augmentation.draw(self.num_train, generator).to(self.device)
        pixels = self._pixels["train"]
        for part in self._training_slices(batch_size, num_steps, rank, world_size):
            images = self._augmentation.apply(pixels.images[rows[part]], draws[:, part])
            yield self._finish(images), pixels.labels[rows[part]]

    def batches(
        self, split: str, *, batch_size: int, max_images: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split; see `Data.batches`."""
        pixels = self._pixels[split]
        indices = self._evaluation_indices(split, max_images, rank, world_size).to(self.device)
        for start in range(0, len(indices), batch_size):
            rows = indices[start : start + batch_size]
            yield self._finish(pixels.images[rows]), pixels.labels[rows]

    def _finish(self, images: Tensor) -> Tensor:
        normalised = self._normalise(images)
        side = self._preprocessing.image_size
        if normalised.shape[-1] == side:
            return normalised
        # torch's antialiased filters; bicubic stands for every sharper one (lanczos)
        mode = "bilinear" if self._preprocessing.interpolation == "bilinear" else "bicubic"
        return interpolate(normalised, size=(side, side), mode=mode, antialias=True, align_corners=False)


def _check_shapes(pool: ImageSet, test: ImageSet) -> None:
    _, height, width = pool.shape
    if height != width:
        raise UserError(f"{pool.name}: images are {width}x{height} pixels; only square ones fit, or an imagefolder")
    if pool.shape != test.shape:
        raise UserError(
            f"{test.name}: images are {_describe(test.shape)}, but those of {pool.name} are {_describe(pool.shape)}"
        )


def _describe(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"


def _check_memory(images: ImageSet, num_images: int) -> None:
    channels, height, width = images.shape
    num_bytes = num_images * channels * height * width
    if num_bytes > MAX_BYTES:
        size, limit = f"{num_bytes / 2**30:.1f} GiB", f"{MAX_BYTES / 2**30:.0f} GiB"
        raise UserError(
            f"{images.name}: {num_images} images of {_describe(images.shape)} take {size}, above the {limit} held in "
            "memory; use data.name=imagefolder, or fewer data.train_images"
        )
