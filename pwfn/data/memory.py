"""Small sets, decoded and prepared once and held as bytes on the device: shuffling is index arithmetic.

Own code, since a network of CIFAR-10's size trains faster than processes can decode; the pixels are those that timm's
transform gives, as everywhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image as pillow  # noqa: N813  (the module is named as its class)
from torch import Tensor
from torch.nn.functional import pad

from pwfn.config import DataConfig
from pwfn.data.contract import Data, Drawn, Preprocessing
from pwfn.data.images import Images
from pwfn.data.pixels import describe_problem, to_mode
from pwfn.data.splits import Splits
from pwfn.data.transforms import automatic_augmentation, leaves_alone, measuring_transform
from pwfn.errors import UserError
from pwfn.seeds import seeded_globally

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 2**30
"""A set whose prepared images take more is refused; without data.in_memory it is read from its files."""
SECONDS_BETWEEN_REPORTS = 5.0
CHUNK = 512
"""Images that a thread is given at once."""


def hold(source: Drawn, preprocessing: Preprocessing, device: torch.device) -> MemoryData:
    """Decode and prepare the images of all splits, and put them on the device.

    Raises:
        UserError: a broken image, where those are not to be skipped, or more than fits.
    """
    splits = source.splits
    rows = torch.cat([splits.train, splits.validation, splits.test]).sort().values
    _check_memory(source.images, preprocessing, len(rows))
    pixels, problems = _read(source.images, rows, source.config, preprocessing)
    lost = torch.tensor(sorted(problems), dtype=torch.int64)
    broken = torch.zeros(len(source.images), dtype=torch.bool)
    broken[lost] = True
    if problems:
        rows, pixels = rows[~torch.isin(rows, lost)], pixels[~torch.isin(rows, lost)]
        splits = Splits(*(each[~torch.isin(each, lost)] for each in _each(splits)))
    places = (torch.searchsorted(rows, each) for each in _each(splits))
    order = dict(zip(("train", "validation", "test"), places, strict=True))
    held = _Pixels(pixels.to(device), source.images.labels[rows].to(device))
    augmentation = Augmentation.from_config(source.config, min(preprocessing.shape[1:]))
    return MemoryData(source.num_classes, order, held, augmentation, broken, preprocessing, device)


@dataclass(frozen=True)
class _Pixels:
    images: Tensor
    """uint8 `(images, channels, height, width)`."""
    labels: Tensor
    """int64 `(images,)`."""


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
        pixels: _Pixels,
        augmentation: Augmentation,
        broken: Tensor,
        preprocessing: Preprocessing,
        device: torch.device,
    ) -> None:
        super().__init__(num_classes, order, broken, preprocessing, device)
        self._pixels = pixels
        self._augmentation = augmentation

    def train_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        num_steps: int | None = None,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        auto_augment: str | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch; see `Data.train_batches`. Automatic augmentation computes on the CPU, image by image."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU: every device sees the same epoch
        shuffled = torch.randperm(self.num_train, generator=generator)
        rows = self._order["train"][shuffled].to(self.device)
        draws = self._augmentation.draw(self.num_train, generator).to(self.device)
        pixels = self._pixels
        automatic = None if auto_augment is None else automatic_augmentation(self.preprocessing, auto_augment)
        seeds = torch.randint(2**62, (self.num_train if automatic else 0,), generator=generator)
        for part in self._training_slices(batch_size, num_steps, rank, world_size, first_step):
            images = self._augmentation.apply(pixels.images[rows[part]], draws[:, part])
            if automatic is not None:
                images = _augmented(images, automatic, seeds[part].tolist())
            yield self._normalise(images), pixels.labels[rows[part]]

    def batches(
        self, split: str, *, batch_size: int, max_images: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split; see `Data.batches`."""
        pixels = self._pixels
        indices = self._evaluation_indices(split, max_images, rank, world_size).to(self.device)
        for start in range(0, len(indices), batch_size):
            rows = indices[start : start + batch_size]
            yield self._normalise(pixels.images[rows]), pixels.labels[rows]


def _augmented(images: Tensor, automatic: Any, seeds: list[int]) -> Tensor:
    """Let timm change each image, with a seed of its own; all are uint8 `(batch, channels, height, width)`."""
    changed = torch.empty_like(images, device="cpu")
    for place, (image, seed) in enumerate(zip(images.cpu(), seeds, strict=True)):
        levels = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy()
        with seeded_globally(seed):
            found = torch.from_numpy(np.array(automatic(pillow.fromarray(levels))))
        changed[place] = found[None] if found.ndim == 2 else found.permute(2, 0, 1)
    return changed.to(images.device)


def _each(splits: Splits) -> tuple[Tensor, Tensor, Tensor]:
    return splits.train, splits.validation, splits.test


def _read(
    images: Images, rows: Tensor, config: DataConfig, preprocessing: Preprocessing
) -> tuple[Tensor, dict[int, str]]:
    """Decode and prepare rows to uint8 `(rows, channels, height, width)`; also return the broken ones and why."""
    pixels = np.zeros((len(rows), *preprocessing.shape), np.uint8)
    broken: dict[int, str] = {}
    transform = measuring_transform(preprocessing)
    begun = reported = time.monotonic()

    def prepare(start: int) -> None:
        for place, row in enumerate(rows[start : start + CHUNK].tolist(), start):
            try:
                image = to_mode(images.picture(row), len(pixels[0]), exif_orientation=config.exif_orientation)
            except MemoryError:  # the machine's fault, not the file's
                raise
            except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
                broken[row] = describe_problem(images.where(row), error)
                continue
            if leaves_alone(preprocessing, image):
                levels = np.asarray(image)
                pixels[place] = levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)
            else:
                pixels[place] = transform(image).numpy()

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for index, _ in enumerate(threads.map(prepare, range(0, len(rows), CHUNK)), 1):
            _refuse(broken, config)
            done = min(index * CHUNK, len(rows))
            now = time.monotonic()
            if done == len(rows) or now - reported >= SECONDS_BETWEEN_REPORTS:
                log.info("%s: %d of %d images prepared, %.1f s", images.name, done, len(rows), now - begun)
                reported = now
    if broken:
        log.warning("%s: %d broken images are left out, the first is %s", images.name, len(broken), broken[min(broken)])
    return torch.from_numpy(pixels), broken


def _refuse(broken: Mapping[int, str], config: DataConfig) -> None:
    if broken and config.broken_images == "refuse":
        raise UserError(f"{broken[min(broken)]}; --check-data lists all, data.broken_images=skip leaves them out")


def _check_memory(images: Images, preprocessing: Preprocessing, num_images: int) -> None:
    channels, height, width = preprocessing.shape
    num_bytes = num_images * channels * height * width
    if num_bytes > MAX_BYTES:
        size, limit = f"{num_bytes / 2**30:.1f} GiB", f"{MAX_BYTES / 2**30:.0f} GiB"
        raise UserError(
            f"{images.name}: {num_images} images of {width}x{height} take {size}, above the {limit} held in memory; "
            "set data.in_memory=false, or use fewer data.train_images"
        )
