"""torchvision's image classification sets by class name; never downloaded by a trial."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from pwfn.config import DataConfig
from pwfn.data.classes import check_classes, classes_of_numbers
from pwfn.data.collection import Collection
from pwfn.data.fingerprint import digest_array, digest_image_files
from pwfn.data.images import Images
from pwfn.data.pixels import GREY
from pwfn.data.roles import choose_roles
from pwfn.errors import UserError, first_line, nearest_names

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class NamedSet:
    """How torchvision's class gives the splits of a set."""

    splits: Mapping[str, Arguments]
    """Arguments of each split, by its official name."""
    variants: Mapping[str, Arguments] = field(default_factory=dict)
    """Further arguments, by the word after the slash in `data.dataset`; the first is taken where none is given."""
    is_small: bool = False
    """Whether torchvision itself holds the pixels in memory."""

    @property
    def draws_test(self) -> bool:
        """Whether it comes without any test images."""
        return len(self.splits) == 1


def _by_name(*names: str) -> dict[str, Arguments]:
    return {name: {"split": name} for name in names}


FLAG: Mapping[str, Arguments] = {"train": {"train": True}, "test": {"train": False}}
WHOLE: Mapping[str, Arguments] = {"train": {}}
EMNIST = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")

SETS: Mapping[str, NamedSet] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), NamedSet(FLAG, is_small=True)),
    "QMNIST": NamedSet({"train": {"what": "train"}, "test": {"what": "test"}}, is_small=True),
    "EMNIST": NamedSet(FLAG, {name: {"split": name} for name in EMNIST}, is_small=True),
    "STL10": NamedSet(_by_name("train", "test"), is_small=True),
    "SVHN": NamedSet(_by_name("train", "test"), is_small=True),
    "SEMEION": NamedSet(WHOLE, is_small=True),
    **dict.fromkeys(("Food101", "GTSRB", "StanfordCars"), NamedSet(_by_name("train", "test"))),
    **dict.fromkeys(
        ("DTD", "FGVCAircraft", "Flowers102", "PCAM", "RenderedSST2"), NamedSet(_by_name("train", "val", "test"))
    ),
    "Country211": NamedSet(_by_name("train", "valid", "test")),
    **dict.fromkeys(("ImageNet", "Imagenette"), NamedSet(_by_name("train", "val"))),
    "OxfordIIITPet": NamedSet(_by_name("trainval", "test")),
    "Places365": NamedSet(_by_name("train-standard", "val"), {"large": {}, "small": {"small": True}}),
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SUN397"), NamedSet(WHOLE)),
    "FakeData": NamedSet(WHOLE, {"1000": {}, "100": {"size": 100}}),
}  # fmt: skip
"""Sets that torchvision reads."""
LABELS = ("targets", "labels", "_labels", "y")
"""Attributes in which torchvision's sets keep their labels."""
PATHS = ("samples", "_samples", "imgs")
"""Attributes with pairs of a path and a label."""


class NamedImages(Images):
    """A split of a torchvision set."""

    def __init__(self, name: str, labels: Tensor, images: Any) -> None:
        super().__init__(name, labels)
        self.images = images

    def picture(self, row: int) -> Image.Image:
        """Let torchvision decode an image."""
        image: Image.Image = self.images[row][0]
        return image

    def where(self, row: int) -> str:
        """Name the file where each image has one, else the row."""
        paths = _paths(self.images)
        return f"{self.name}, image {row}" if paths is None else paths[row]

    def content(self) -> str:
        """Digest the pixels that are in memory, else the files' names and sizes."""
        paths = _paths(self.images)
        if paths is not None:
            return digest_image_files(paths, str(self.images.root))
        if hasattr(self.images, "data"):
            return digest_array(self.images.data)
        if hasattr(self.images, "h5py"):
            folder = self.images._base_folder
            files = [str(folder / record[0]) for record in self.images._FILES[self.images._split].values()]
            return digest_image_files(files, str(folder))
        return digest_array(np.arange(len(self.images)))


def open_torchvision(config: DataConfig, root: Path | None) -> Collection:
    """Open one of torchvision's sets that was downloaded before.

    Raises:
        UserError: a set that is not known, or not complete under the folder.
    """
    name, _, variant = (config.dataset or "").partition("/")
    if name not in SETS:
        known = ", ".join(sorted(SETS))
        raise UserError(
            f"data.dataset: {name!r} is not one of {known}; read other sets from folders (data.name=imagefolder) or "
            f"from the hub (data.name=huggingface){nearest_names(name, SETS)}"
        )
    known_set = SETS[name]
    extra = _variant(name, variant, known_set)
    roles = choose_roles(config, list(known_set.splits), name, may_draw_test=known_set.draws_test)
    opened = {split: _open(name, root, {**extra, **known_set.splits[split]}) for split in roles.used}
    raw = {split: _labels(images, f"{name}, split {split}") for split, images in opened.items()}
    names = _class_names(opened[roles.train])
    if names is not None and names[0] == "N/A":  # EMNIST's letters are numbered from 1
        names, raw = names[1:], {split: labels - 1 for split, labels in raw.items()}
    classes, numbers = classes_of_numbers(torch.cat(list(raw.values())), names, config, name)
    parts = {split: NamedImages(f"{name} ({split})", numbers[raw[split]], opened[split]) for split in roles.used}
    check_classes(classes, parts[roles.train].labels, name)
    grey = known_set.is_small and parts[roles.train].picture(0).mode in GREY
    return Collection(
        f"torchvision's {name}{f' ({variant})' if variant else ''}", roles, parts, classes, channels=1 if grey else 3,
        is_small=known_set.is_small,
    )  # fmt: skip


def _variant(name: str, variant: str, known: NamedSet) -> Arguments:
    if not variant and known.variants:
        return next(iter(known.variants.values()))
    if variant and variant not in known.variants:
        some = f"; it has {', '.join(known.variants)}" if known.variants else "; it has none"
        raise UserError(f"data.dataset: {name} has no variant {variant!r}{some}")
    return known.variants[variant] if variant else {}


def _open(name: str, root: Path | None, arguments: Arguments) -> Any:
    kind = getattr(datasets, name)
    try:
        images = (
            kind(**arguments)
            if name == "FakeData"
            else kind(root, **arguments, **({"download": False} if _can_fetch(name) else {}))
        )
    except Exception as error:  # on files that are damaged or of another kind, torchvision raises nearly anything
        raise UserError(_missing(name, root, arguments, error)) from error
    if name == "SUN397":  # torchvision lists its files as the disk does, another way on another machine
        pairs = sorted(zip(images._image_files, images._labels, strict=True))
        images._image_files, images._labels = (list(each) for each in zip(*pairs, strict=True))
    return images


def _missing(name: str, root: Path | None, arguments: Arguments, error: Exception) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    if "h5py" in str(error):
        return f"data.dataset: torchvision reads {name} with h5py, which is not installed; pip install h5py"
    problem = f"data.root: {name} ({given}) is not complete under {root}"
    if not isinstance(error, RuntimeError | FileNotFoundError):
        problem = f"data.root: {name} ({given}) under {root} is damaged ({type(error).__name__}: {first_line(error)})"
    if root is not None and _has_class_folders(root, arguments.get("split", "train")):
        return f"{problem}; its folders are there: read them with data.name=imagefolder data.root={root}"
    if name == "ImageNet":
        ways = "put its archives there (image-net.org), or read folders train/ and val/ with data.name=imagefolder"
        return f"{problem}; {ways}"
    if not _can_fetch(name):
        return f"{problem}; torchvision cannot fetch it, get it from its authors"
    imports = f"import pwfn.torchvision_shim; from torchvision.datasets import {name}"
    call = f"{name}({str(root)!r}, {f'{given}, ' if given else ''}download=True)"
    return f'{problem}; fetch it once: python -c "{imports}; {call}"'


def _can_fetch(name: str) -> bool:
    parameters = inspect.signature(getattr(datasets, name)).parameters
    return "download" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _has_class_folders(root: Path, split: object) -> bool:
    folder = root / str(split)
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())


def _labels(images: Any, where: str) -> Tensor:
    """Return the labels without opening images where the set has them; PCAM's are in its HDF5 file."""
    for attribute in LABELS:
        found = getattr(images, attribute, None)
        if found is not None:
            return _as_numbers(found, len(images), where)
    for attribute in PATHS:
        if hasattr(images, attribute):
            return torch.tensor([label for _, label in getattr(images, attribute)])
    if hasattr(images, "h5py"):
        record = images._FILES[images._split]["targets"][0]
        with images.h5py.File(images._base_folder / record) as file:
            return torch.from_numpy(file["y"][:, 0, 0, 0]).long()
    return torch.tensor([int(images[row][1]) for row in range(len(images))])


def _as_numbers(found: Any, num_images: int, where: str) -> Tensor:
    labels = torch.as_tensor(np.asarray(found)).long()
    if labels.ndim == 2:  # QMNIST: the class, then what is known of the writer
        labels = labels[:, 0]
    if len(labels) != num_images:
        raise UserError(f"data.root: {where} has {num_images} images and {len(labels)} labels")
    return labels


def _class_names(images: Any) -> list[str] | None:
    names = getattr(images, "classes", None) or getattr(images, "categories", None)
    if names is None:
        return None
    return [" or ".join(each) if isinstance(each, tuple) else str(each) for each in names]


def _paths(images: Any) -> list[str] | None:
    """Return the files of the images, or None where they have none of their own."""
    for attribute in PATHS:
        if hasattr(images, attribute):
            return [str(path) for path, _ in getattr(images, attribute)]
    for attribute in ("_image_files", "_images"):
        if hasattr(images, attribute):
            return [str(path) for path in getattr(images, attribute)]
    return None
