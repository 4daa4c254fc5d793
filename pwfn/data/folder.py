"""An ImageNet-like folder: `train/CLASS/*` and `val/CLASS/*`."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from pwfn.config import DataConfig
from pwfn.data.loader import ImageFiles, LoaderSource
from pwfn.errors import UserError, nearest_names

TEST_FOLDERS = ("val", "validation", "test")
"""The first that exists holds the test images: ImageNet's own test images have no public labels."""


def open_imagefolder(config: DataConfig, root: Path, seed: int) -> LoaderSource:
    """Open a folder of image files; validation is held out of `train`, and `val` serves as test."""
    train = root / "train"
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if not train.is_dir():
        raise UserError(f"data.root: {root} has no folder train/")
    if test is None:
        raise UserError(f"data.root: {root} has no folder {', '.join(f'{name}/' for name in TEST_FOLDERS)}")
    classes = _class_folders(train)
    if not classes:
        raise UserError(f"{train}: has no class folders")
    for unknown in sorted(set(_class_folders(test)) - set(classes)):
        hint = nearest_names(unknown, classes, count=1)
        raise UserError(f"{test}: class folder {unknown} is not one of the {len(classes)} in {train}{hint}")
    pool, held = _list_files(train, classes), _list_files(test, classes)
    return LoaderSource(config, pool, held, class_names=classes, seed=seed)


def _class_folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))


def _list_files(folder: Path, classes: tuple[str, ...]) -> ImageFiles:
    images = _Folder(folder, classes)
    if not images.samples:
        raise UserError(f"{folder}: its class folders hold no image ({', '.join(IMG_EXTENSIONS)})")
    paths = [path for path, _ in images.samples]
    return ImageFiles(str(folder), images, torch.tensor(images.targets), paths, root=str(folder))


class _Folder(ImageFolder):  # type: ignore[misc]  # torchvision has no types here
    """Torchvision's ImageFolder with given classes, since a test folder may lack some."""

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        self.given = classes
        super().__init__(folder, allow_empty=True)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the classes given, whatever the folder holds."""
        return list(self.given), {name: label for label, name in enumerate(self.given)}
