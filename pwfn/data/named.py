"""torchvision's image classification sets by class name; never downloaded by a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from pwfn.config import DataConfig
from pwfn.data.contract import Source
from pwfn.data.fingerprint import digest_array
from pwfn.data.loader import ImageFiles, LoaderSource
from pwfn.data.memory import ImageSet, MemorySource
from pwfn.errors import UserError, nearest_names

_BY_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
_BY_NAME: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})

IN_MEMORY = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), _BY_FLAG),
    **dict.fromkeys(("STL10", "SVHN"), _BY_NAME),
}
"""Sets whose pixels torchvision itself holds in memory, with the arguments of their training and test images."""

FROM_FILES = {
    **dict.fromkeys(("Country211", "DTD", "FGVCAircraft", "Flowers102", "Food101", "GTSRB", "StanfordCars"), _BY_NAME),
    **dict.fromkeys(("ImageNet", "Imagenette"), ({"split": "train"}, {"split": "val"})),
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}),
}
"""Sets of image files of various sizes."""

SETS = {**IN_MEMORY, **FROM_FILES}


def open_torchvision(config: DataConfig, root: Path, seed: int) -> Source:
    """Open one of torchvision's sets that was downloaded before."""
    name = config.dataset or ""
    if name not in SETS:
        known = ", ".join(sorted(SETS))
        raise UserError(f"data.dataset: {name!r} is not one of {known}{nearest_names(name, SETS)}")
    pool, test = (_open(name, root, arguments) for arguments in SETS[name])
    class_names = _class_names(pool)
    if name in IN_MEMORY:
        pool_set, test_set = _image_set(name, pool), _image_set(f"{name} (test)", test)
        return MemorySource(config, pool_set, test_set, class_names=class_names, seed=seed)
    pool_files, test_files = _image_files(name, pool), _image_files(f"{name} (test)", test)
    return LoaderSource(config, pool_files, test_files, class_names=class_names, seed=seed)


def _open(name: str, root: Path, arguments: dict[str, Any]) -> Any:
    try:
        return getattr(datasets, name)(root, **arguments)
    except (RuntimeError, OSError) as error:
        raise UserError(_missing(name, root, arguments)) from error


def _missing(name: str, root: Path, arguments: dict[str, Any]) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    problem = f"data.root: {name} ({given}) is not complete under {root}"
    if name == "ImageNet":
        return f"{problem}; put its archives there (image-net.org)"
    imports = f"import pwfn.torchvision_shim; from torchvision.datasets import {name}"
    call = f"{name}({str(root)!r}, {given}, download=True)"
    return f'{problem}; fetch it once: python -c "{imports}; {call}"'


def _labels(images: Any) -> Tensor:
    """Return the labels without opening images; torchvision's sets keep them in one of four places."""
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(images, attribute):
            return torch.as_tensor(np.asarray(getattr(images, attribute))).long()
    return torch.tensor([label for _, label in images._samples])


def _class_names(images: Any) -> tuple[str, ...]:
    names = getattr(images, "classes", None)
    if names is None:
        names = range(1 + int(_labels(images).max()))
    return tuple(" or ".join(name) if isinstance(name, tuple) else str(name) for name in names)


def _image_set(name: str, images: Any) -> ImageSet:
    first = _pixels(images[0][0])
    channels, height, width = first.shape

    def read(rows: Tensor) -> Tensor:
        return torch.stack([_pixels(images[row][0]) for row in rows.tolist()])

    return ImageSet(name, _labels(images), (channels, height, width), read, lambda: digest_array(images.data))


def _pixels(image: Any) -> Tensor:
    """Turn a Pillow image into uint8 `(channels, height, width)`."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _image_files(name: str, images: Any) -> ImageFiles:
    return ImageFiles(name, images, _labels(images), _paths(images), root=str(images.root))


def _paths(images: Any) -> list[str]:
    """Return the files of the images; torchvision's sets keep them in one of four places."""
    for attribute in ("samples", "_samples"):
        if hasattr(images, attribute):
            return [str(path) for path, _ in getattr(images, attribute)]
    return [str(path) for path in getattr(images, "_image_files", None) or images._images]
