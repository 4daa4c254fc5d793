"""From a configuration to an opened data set, and from that to batches."""

from __future__ import annotations

from pathlib import Path

import torch

from pwfn.config import DataConfig
from pwfn.data.collection import Collection
from pwfn.data.contract import Data, Drawn, Preprocessing
from pwfn.data.fingerprint import fingerprint
from pwfn.data.images import Images, JoinedImages
from pwfn.data.loader import LoaderData
from pwfn.data.memory import hold
from pwfn.data.splits import TEST_FRACTION, Splits, draw_splits
from pwfn.errors import UserError
from pwfn.paths import expand_path

ENLARGED = 2
"""Small images whose sides a network wants more than so many times as long are refused, unless the size is given."""


class Source:
    """A data set that was opened: its splits are drawn, its images not yet read."""

    def __init__(self, config: DataConfig, collection: Collection, seed: int) -> None:
        roles, parts = collection.roles, collection.parts
        self.config = config
        self.collection = collection
        self.images: Images = JoinedImages([parts[name] for name in roles.used])
        self.splits: Splits = draw_splits(
            config,
            parts[roles.train].labels,
            None if roles.test is None else parts[roles.test].labels,
            seed,
            None if roles.validation is None else parts[roles.validation].labels,
            self.test_fraction,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of all classes, each at its number."""
        return self.collection.classes.names

    @property
    def num_classes(self) -> int:
        """Classes of the labels."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.config.channels or self.collection.channels

    @property
    def test_fraction(self) -> float:
        """Share of the training images held out as test images, where no split serves for that."""
        return self.config.test_fraction or TEST_FRACTION

    @property
    def in_memory(self) -> bool:
        """Whether the prepared images are held on the device."""
        return self.collection.is_small if self.config.in_memory is None else self.config.in_memory

    def fingerprint(self) -> dict[str, str]:
        """Describe the data so that another state of it is told apart: words for a message -> counts and digests."""
        roles, parts = self.collection.roles, self.collection.parts
        by_role = {"training": roles.train, "test": roles.test, "validation": roles.validation}
        return fingerprint(self.class_names, {role: parts[name] for role, name in by_role.items() if name is not None})

    def prepare(self, preprocessing: Preprocessing, device: torch.device) -> Data:
        """Get ready for batches on a device, as the network wants its images.

        Raises:
            UserError: a broken image, or images that the network cannot take.
        """
        channels, *_ = preprocessing.shape
        if channels != self.in_channels:
            raise UserError(
                f"{self.images.name}: images have {self.in_channels} channels, but the network takes {channels}; set "
                f"data.channels={channels} to convert them"
            )
        drawn = Drawn(self.config, self.images, self.splits, self.num_classes)
        if not self.in_memory:
            return LoaderData(drawn, preprocessing, device)
        self._check_size(preprocessing)
        return hold(drawn, preprocessing, device)

    def _check_size(self, preprocessing: Preprocessing) -> None:
        """Refuse to enlarge small images many times where nobody said so: the network was made for others."""
        if self.config.image_size is not None or not self.collection.is_small:
            return
        width, height = self.images.picture(int(self.splits.train[0])).size
        _, *wanted = preprocessing.shape
        if ENLARGED * max(width, height) < max(wanted):
            side = max(wanted)
            choice = f"data.image_size to {max(width, height)} (a network for that size) or {side} (images enlarged)"
            raise UserError(
                f"{self.images.name}: images are {width}x{height}, but the network takes {side}x{side}; set {choice}"
            )


def open_source(config: DataConfig, *, seed: int) -> Source:
    """Open a data set: read its labels, draw its splits, decode at most one image.

    Args:
        config: which set, and how it is split.
        seed: of the study; draws the split where `config.split_seed` is None.

    Raises:
        UserError: data that is missing, unreadable or of an unexpected form; names field, file and row.
    """
    return Source(config, _open(config), seed)


def _open(config: DataConfig) -> Collection:
    if config.name == "digits":
        from pwfn.data.digits import open_digits

        return open_digits(config)
    if config.name == "torchvision":
        from pwfn.data.named import open_torchvision

        return open_torchvision(config, _folder(config) if config.root is not None else None)
    if config.name == "imagefolder":
        from pwfn.data.folder import open_imagefolder

        return open_imagefolder(config, _folder(config))
    from pwfn.data.hub import open_hub  # `datasets` takes a second to import

    is_remote = config.root is not None and "://" in config.root
    return open_hub(config, config.root if is_remote or config.root is None else str(_folder(config)))


def _folder(config: DataConfig) -> Path:
    text = config.root or ""
    if "://" in text:
        raise UserError(
            f"data.root: {text} is an address, but data.name={config.name} reads folders of this machine; parquet and "
            "webdataset read s3:// and hf://, or copy the files to a disk"
        )
    root = expand_path(text, "data.root")
    if root.is_file():
        raise UserError(f"data.root: {root} is a file; name the folder that it is in")
    if not root.is_dir():
        raise UserError(f"data.root: folder {root} does not exist")
    return root
