"""Large sets, decoded from image files batch by batch in worker processes."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pwfn.config import DataConfig
from pwfn.data.contract import Data, Drawn, Preprocessing
from pwfn.data.images import Images
from pwfn.data.pixels import describe_problem, to_mode
from pwfn.data.transforms import measuring_transform, training_transform
from pwfn.errors import LoaderError, UserError
from pwfn.seeds import seeded_globally

log = logging.getLogger(__name__)

Key = tuple[int, int | None, str | None]
"""An image's row, the seed of its augmentation or None without any, and timm's notation for more of it."""

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2
"""Batches that each worker prepares in advance, torch's default."""


class LoaderData(Data):
    """Batches from worker processes; each image's augmentation has its own seed, whichever process draws it.

    The processes start with the first batch and serve all epochs and splits, until one of them fails or is left before
    its end.
    """

    def __init__(self, source: Drawn, preprocessing: Preprocessing, device: torch.device) -> None:
        splits, config = source.splits, source.config
        order = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        broken = torch.zeros(len(source.images), dtype=torch.bool)
        super().__init__(source.num_classes, order, broken, preprocessing, device)
        self._images = _TransformedImages(source.images, config, preprocessing)
        self._bytes_per_image = prod(preprocessing.shape)
        self._config = config
        self._num_workers = min(config.loader_workers, os.cpu_count() or 1)
        self._kept: DataLoader[Any] | None = None
        self._copying: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

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
        """Yield one epoch; see `Data.train_batches`. A broken image's place is taken by another of its batch."""
        generator = torch.Generator().manual_seed(seed)
        rows = self._order["train"][torch.randperm(self.num_train, generator=generator)]
        seeds = torch.randint(2**62, (self.num_train,), generator=generator)
        parts = list(self._training_slices(batch_size, num_steps, rank, world_size, first_step))
        self._images.augmented(auto_augment)  # raises here, and not in a worker
        batches = _Batches([rows[part] for part in parts], [seeds[part] for part in parts], auto_augment)
        for pixels, labels, missing in self._load(batches):
            again = torch.arange(missing, device=self.device) % len(labels)
            yield torch.cat([pixels, pixels[again]]), torch.cat([labels, labels[again]])

    def batches(
        self, split: str, *, batch_size: int, max_images: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split; see `Data.batches`. Broken images are left out."""
        indices = self._evaluation_indices(split, max_images, rank, world_size)
        rows = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        for pixels, labels, _ in self._load(_Batches(rows, None, None)):
            yield pixels, labels

    def _load(self, batches: _Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield normalised images, labels, and how many of the batch were broken; none without a readable image."""
        largest = max((len(each) for each in batches.rows), default=0)
        check_shared_memory(self._num_workers, largest * self._bytes_per_image)
        # It is taken away while it is in use: another iteration meanwhile, or after one that was left, has its own.
        loader, self._kept = self._kept or self._make_loader(), None
        loader.batch_sampler.batches = batches  # type: ignore[union-attr]
        with _loader_errors(self._config):
            with _signals_later():
                loaded = iter(loader)
            for pixels, labels, broken in loaded:
                self._note(broken)
                if len(labels):
                    pixels, labels = self._copied(pixels), self._copied(labels)
                    yield self._normalise(pixels), labels, len(broken)
                elif batches.seeds is not None:
                    raise UserError(f"{broken[0][1]}: none of the {len(broken)} images of a batch can be read")
        self._kept = loader

    def _copied(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device, on a GPU beside what it still computes with earlier batches."""
        if self._copying is None:
            return tensor.to(self.device)
        with torch.cuda.stream(self._copying):
            found = tensor.to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._copying)
        found.record_stream(computing)  # else its memory could be the next copy's while it is still computed with
        return found

    def _make_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self._images,
            batch_sampler=_Present(),
            num_workers=self._num_workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            timeout=self._config.loader_timeout if self._num_workers else 0,
            worker_init_fn=_outlast_signals,
            persistent_workers=self._num_workers > 0,
            generator=torch.Generator(),  # else each iterator draws from the global one
        )

    def _note(self, broken: list[tuple[int, str]]) -> None:
        if broken and self._config.broken_images == "refuse":
            raise UserError(f"{broken[0][1]}; --check-data lists all, data.broken_images=skip leaves them out")
        for row, why in broken:
            if not self.broken[row]:
                self.broken[row] = True
                log.warning("left out, %d so far: %s", int(self.broken.sum()), why)


def check_shared_memory(num_workers: int, batch_bytes: int, place: Path = SHARED_MEMORY) -> None:
    """Refuse loader workers whose batches do not fit into shared memory: they would die of a bus error, or wait.

    Raises:
        UserError: says how much there is, and what is needed.
    """
    if not num_workers or not place.exists():
        return
    needed, free = num_workers * PREFETCHED * batch_bytes, shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"data.loader_workers={num_workers}: their batches take {needed / 2**20:.0f} MiB of shared memory, but "
            f"{place} has {free / 2**20:.0f} MiB left; use fewer workers or smaller batches, or give the container "
            "more (docker run --shm-size=8g)"
        )


@contextmanager
def _loader_errors(config: DataConfig) -> Iterator[None]:
    """Turn what torch's loader says of its workers into one line.

    Raises:
        LoaderError: a worker that was killed, or a batch that did not come in time.
    """
    try:
        yield
    except MemoryError as error:
        raise LoaderError("a loader worker ran out of memory: lower data.loader_workers") from error
    except RuntimeError as error:
        words = str(error)
        if "DataLoader timed out" in words:
            raise LoaderError(
                f"no batch came from the loader in {config.loader_timeout:g} s (data.loader_timeout): a file or a "
                "drive does not answer"
            ) from error
        if "shared memory" in words or "Bus error" in words or "No space left on device" in words:
            raise LoaderError(
                "a loader worker ran out of shared memory: lower data.loader_workers, or give the container more "
                "(docker run --shm-size=8g)"
            ) from error
        if "DataLoader worker" in words:
            raise LoaderError(
                "a loader worker was killed, mostly for lack of memory: lower data.loader_workers"
            ) from error
        raise


@contextmanager
def _signals_later() -> Iterator[None]:
    """Inside, this thread hears neither Ctrl-C nor SIGTERM, and processes that it starts do not until they want to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlast_signals(worker: int) -> None:
    """Let the process that waits for a loader worker decide what Ctrl-C and SIGTERM, sent to both, shall mean.

    A SIGTERM from that process itself ends the worker, also one that waits for a file which never answers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # leaves it to a thread, which learns who sent it
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(1)


@dataclass(frozen=True)
class _Broken:
    """Stands for an image that cannot be read; an exception would reach the trial as a worker's traceback."""

    row: int
    message: str


class _TransformedImages(Dataset[tuple[Tensor, int] | _Broken]):
    def __init__(self, images: Images, config: DataConfig, preprocessing: Preprocessing) -> None:
        self.images = images
        self.config = config
        self.preprocessing = preprocessing
        self.plain = measuring_transform(preprocessing)
        self._augmented: dict[str | None, Any] = {}

    def __getitem__(self, key: Key) -> tuple[Tensor, int] | _Broken:
        row, seed, notation = key
        channels = len(self.preprocessing.mean)
        try:
            image = to_mode(self.images.picture(row), channels, exif_orientation=self.config.exif_orientation)
        except MemoryError:  # the machine's fault, not the file's
            raise
        except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
            return _Broken(row, describe_problem(self.images.where(row), error))
        label = int(self.images.labels[row])
        if seed is None:
            return self.plain(image), label
        augmented = self.augmented(notation)
        with seeded_globally(seed):
            return augmented(image), label

    def augmented(self, notation: str | None) -> Any:
        """The random transform of training images, made once in each process."""
        if notation not in self._augmented:
            made = training_transform(self.preprocessing, self.config.augmentation, notation)
            self._augmented[notation] = made
        return self._augmented[notation]


@dataclass(frozen=True)
class _Batches:
    """What one epoch, or one pass over a split, asks for."""

    rows: list[Tensor]
    """Of each batch."""
    seeds: list[Tensor] | None
    """Of the augmentation of each image; None: without any."""
    auto_augment: str | None

    def __iter__(self) -> Iterator[list[Key]]:
        for batch, rows in enumerate(self.rows):
            seeds = [None] * len(rows) if self.seeds is None else self.seeds[batch].tolist()
            yield [(row, seed, self.auto_augment) for row, seed in zip(rows.tolist(), seeds, strict=True)]


class _Present(Sampler[list[Key]]):
    """The batches of the present iteration, for a loader that outlasts it."""

    batches = _Batches([], None, None)

    def __len__(self) -> int:
        return len(self.batches.rows)

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


def _collate(items: list[tuple[Tensor, int] | _Broken]) -> tuple[Tensor, Tensor, list[tuple[int, str]]]:
    pairs = [item for item in items if not isinstance(item, _Broken)]
    broken = [(item.row, item.message) for item in items if isinstance(item, _Broken)]
    if not pairs:
        return torch.zeros(0), torch.zeros(0, dtype=torch.int64), broken
    pixels, labels = zip(*pairs, strict=True)
    return torch.stack(pixels), torch.tensor(labels), broken
