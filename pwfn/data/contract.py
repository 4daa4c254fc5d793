"""What training knows of data: splits in batches on the device, whatever holds the images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data.images import Images
from pwfn.data.splits import Splits


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images; timm's words, and timm's transforms make it so (`pwfn.data.transforms`)."""

    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]; subtracted."""
    std: tuple[float, ...]
    """Per channel; divided by."""
    image_size: int | tuple[int, int]
    """Side of the network's input in pixels, or its height and width where they differ."""
    interpolation: str = "bicubic"
    """Filter of the resizing."""
    crop_fraction: float = 1.0
    """Share of the resized image that the central crop keeps (crop_pct)."""
    crop_mode: str = "center"
    """center cuts what is outside, squash changes the shape, border pads."""

    def __post_init__(self) -> None:
        """Write a square as one number, so that equal ones compare equal."""
        if not isinstance(self.image_size, int):
            height, width = self.image_size
            object.__setattr__(self, "image_size", height if height == width else (height, width))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return len(self.mean), height, width


class Data(ABC):
    """Images, float32 `(batch, channels, height, width)` and normalised, and their labels, int64 `(batch,)`.

    All batches are on the device. What a batch holds depends on the arguments alone, never on earlier calls.
    """

    def __init__(
        self,
        num_classes: int,
        order: Mapping[str, Tensor],
        broken: Tensor,
        preprocessing: Preprocessing,
        device: torch.device,
    ) -> None:
        self.num_classes = num_classes
        self.broken = broken
        """Which images of the set, bool `(images,)`, are left out because they cannot be read; those that are decoded
        when they are needed are found when they are first drawn."""
        self.preprocessing = preprocessing
        """How the network wants its images."""
        self.device = device
        self._order = order
        """Per split the indices of its images, int64 on the CPU, such that every prefix is a stratified sample."""
        shape = (len(preprocessing.mean), 1, 1)
        self._mean = 255 * torch.tensor(preprocessing.mean, device=device).view(shape)
        self._std = 255 * torch.tensor(preprocessing.std, device=device).view(shape)

    @property
    def num_train(self) -> int:
        """Images to train on."""
        return len(self._order["train"])

    @property
    def num_validation(self) -> int:
        """Images that the search sees."""
        return len(self._order["validation"])

    @property
    def num_test(self) -> int:
        """Images measured at the end."""
        return len(self._order["test"])

    def num_steps(self, batch_size: int) -> int:
        """Full global batches of one epoch; a set smaller than one batch gives one of all its images."""
        return max(1, self.num_train // batch_size)

    @abstractmethod
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
        """Yield one epoch of shuffled, augmented batches.

        Order and augmentation follow from `seed` alone and are drawn for global batches; each rank gets its
        contiguous part, so that all ranks together see what one worker would.

        Args:
            batch_size: images of a global batch; the epoch's last, smaller batch is dropped.
            seed: of this epoch.
            num_steps: stop after this many batches; None, or more than there are, yields all.
            first_step: leave out this many batches at the beginning; the others are what they would be.
            rank: which part of each batch, in [0, world_size).
            world_size: number of parts.
            auto_augment: further augmentation of each image, in timm's notation; see `BaselineConfig.aa`.
        """

    @abstractmethod
    def batches(
        self, split: str, *, batch_size: int, max_images: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split in file order without augmentation, each image on exactly one rank.

        Args:
            split: train, validation or test.
            batch_size: images of one batch on one rank; the last may be smaller.
            max_images: only a stratified sample of this many over all ranks, always the same; None yields all.
            rank: which part of the split, in [0, world_size).
            world_size: number of parts.
        """

    def _normalise(self, images: Tensor) -> Tensor:
        # Channels last: what convolutions read fastest, on CPUs and GPUs; what they put out keeps the order.
        return ((images.float() - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def _training_slices(
        self, batch_size: int, num_steps: int | None, rank: int, world_size: int, first_step: int = 0
    ) -> Iterator[slice]:
        """Where a rank's part of each batch lies in the epoch's order."""
        steps = self.num_steps(batch_size)
        size = min(batch_size, self.num_train)
        for step in range(first_step, steps if num_steps is None else min(steps, num_steps)):
            yield rank_slice(size, rank, world_size, start=step * size)

    def _evaluation_indices(self, split: str, max_images: int | None, rank: int, world_size: int) -> Tensor:
        """The indices of a rank's part of a split, in file order."""
        chosen = self._order[split][:max_images].sort().values
        return chosen[rank_slice(len(chosen), rank, world_size)]


@dataclass(frozen=True)
class Drawn:
    """Labelled images and which of them belong to which split: what batches are made from."""

    config: DataConfig
    images: Images
    splits: Splits
    """Rows of `images`."""
    num_classes: int


def rank_slice(num_images: int, rank: int, world_size: int, *, start: int = 0) -> slice:
    """Return a rank's contiguous part of `num_images` from `start`; parts differ by one image at most."""
    return slice(start + num_images * rank // world_size, start + num_images * (rank + 1) // world_size)
