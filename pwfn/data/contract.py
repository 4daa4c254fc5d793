"""What training knows of data: splits in batches on the device, whatever holds the images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data.splits import Splits


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images."""

    mean: tuple[float, ...]
    """Per channel, of pixels in [0, 1]; subtracted."""
    std: tuple[float, ...]
    """Per channel; divided by."""
    image_size: int
    """Side of the network's input in pixels."""
    interpolation: str = "bicubic"
    """bilinear or bicubic, for images of another size."""
    crop_fraction: float = 1.0
    """Share of an image file's shorter side that the central crop keeps; images held in memory are never cropped."""


class Data(ABC):
    """Images of one network's trial: float32 `(batch, channels, side, side)`, normalised, and int64 labels `(batch,)`.

    All batches are on the device. What a batch holds depends on the arguments alone, never on earlier calls.
    """

    def __init__(
        self, num_classes: int, order: Mapping[str, Tensor], preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self.num_classes = num_classes
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
        self, *, batch_size: int, seed: int, num_steps: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch of shuffled, augmented batches.

        Order and augmentation follow from `seed` alone and are drawn for global batches; each rank gets its
        contiguous part, so that all ranks together see what one worker would.

        Args:
            batch_size: images of a global batch; the epoch's last, smaller batch is dropped.
            seed: of this epoch.
            num_steps: stop after this many batches; None, or more than there are, yields all.
            rank: which part of each batch, in [0, world_size).
            world_size: number of parts.
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

    def _training_slices(self, batch_size: int, num_steps: int | None, rank: int, world_size: int) -> Iterator[slice]:
        """Where a rank's part of each batch lies in the epoch's order."""
        steps = self.num_steps(batch_size)
        size = min(batch_size, self.num_train)
        for step in range(steps if num_steps is None else min(steps, num_steps)):
            yield rank_slice(size, rank, world_size, start=step * size)

    def _evaluation_indices(self, split: str, max_images: int | None, rank: int, world_size: int) -> Tensor:
        """The indices of a rank's part of a split, in file order."""
        chosen = self._order[split][:max_images].sort().values
        return chosen[rank_slice(len(chosen), rank, world_size)]


class Source(ABC):
    """A data set that was opened: its splits are drawn, its images not yet read."""

    def __init__(
        self,
        config: DataConfig,
        splits: Splits,
        *,
        class_names: tuple[str, ...],
        in_channels: int,
        image_size: int | None,
    ) -> None:
        self.config = config
        self.splits = splits
        self.class_names = class_names
        self.in_channels = in_channels
        """1 for grey images, 3 for colour."""
        self.image_size = image_size
        """Side of the images in pixels where all are squares of one size, else None."""

    @property
    def num_classes(self) -> int:
        """Classes of the labels."""
        return len(self.class_names)

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Describe the data so that another state of it is told apart: words for a message -> counts and digests."""

    @abstractmethod
    def prepare(self, preprocessing: Preprocessing, device: torch.device) -> Data:
        """Read what is needed for batches on a device, as the network wants its images.

        Raises:
            UserError: a broken image, or images that the network cannot take.
        """


def rank_slice(num_images: int, rank: int, world_size: int, *, start: int = 0) -> slice:
    """Return a rank's contiguous part of `num_images` from `start`; parts differ by one image at most."""
    return slice(start + num_images * rank // world_size, start + num_images * (rank + 1) // world_size)
