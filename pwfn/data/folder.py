"""Folders of image files, `SPLIT/CLASS/*`, as ImageNet and timm have them.

The files are listed here, not by torchvision's or timm's reader: those take hidden folders for classes, do not say what
they leave out, and timm's sorts a million paths by numbers inside them, which takes a minute.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from pwfn.config import DataConfig
from pwfn.data.classes import Classes, check_classes, classes_of_names
from pwfn.data.collection import Collection
from pwfn.data.images import FileImages, printable
from pwfn.data.roles import choose_roles
from pwfn.errors import UserError, nearest_names

SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".gif", ".avif", ".jp2", ".j2k",
))  # fmt: skip
"""Suffixes of image files, in lower case; all are decoded by Pillow."""
SYSTEM = frozenset(("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
"""Folders that a system leaves behind; those whose name begins with a dot are skipped likewise."""
HIDDEN = "hidden or system files and folders"
SPLITS_SHOWN = 8


def open_imagefolder(config: DataConfig, root: Path) -> Collection:
    """Open a folder of image files.

    Raises:
        UserError: splits or classes that are not there; names the folder and what was found.
    """
    skipped: Counter[str] = Counter()
    roles = choose_roles(config, _split_names(config, root), str(root))
    folders = {name: root / name for name in roles.used}
    train = folders[roles.train]
    found = {name: _class_folders(folder, skipped) for name, folder in folders.items()}
    if not found[roles.train]:
        raise UserError(f"{train}: has no class folders")
    keys = {printable(name): name for name in found[roles.train]}
    classes = classes_of_names(keys, config, str(train))
    for name, folder in folders.items():
        _check_known(folder, map(printable, found[name]), classes, train)
    parts = {name: _list_files(folder, found[name], classes, skipped) for name, folder in folders.items()}
    nested = [name for name in found[roles.train] if _has_folders(train / name)]
    check_classes(classes, parts[roles.train].labels, str(train), _hint(train, nested, skipped))
    notes = (f"{len(nested)} class folders have folders in them, whose images count for them",) if nested else ()
    return Collection(f"image files under {root}", roles, parts, classes, skipped=skipped, notes=notes)


def _split_names(config: DataConfig, root: Path) -> list[str]:
    """Return the folders under the root, and those farther below that a field names."""
    names = [entry.name for entry in sorted(root.iterdir()) if entry.is_dir() and not _is_hidden(entry.name)]
    fields = (config.train_split, config.validation_split, config.test_split)
    return [*names, *(name for name in dict.fromkeys(fields) if name and name not in names and (root / name).is_dir())]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM


def _class_folders(folder: Path, skipped: Counter[str]) -> list[str]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                skipped[HIDDEN] += 1
            elif entry.is_dir():
                names.append(entry.name)
            else:
                skipped["files beside the class folders"] += 1
    return sorted(names)


def _check_known(folder: Path, found: Iterator[str], classes: Classes, train: Path) -> None:
    for unknown in sorted(set(found) - set(classes.names)):
        hint = nearest_names(unknown, classes.names, count=1)
        raise UserError(f"{folder}: class folder {unknown} is not one of the {len(classes.names)} in {train}{hint}")


def _list_files(folder: Path, names: Sequence[str], classes: Classes, skipped: Counter[str]) -> FileImages:
    """List a split's files, class by class in the order of their numbers, in each by path."""
    paths: list[str] = []
    ends: list[tuple[int, int]] = []
    number = classes.number
    for name in sorted(names, key=lambda name: number[printable(name)]):
        before = len(paths)
        for place, files in _walk(os.path.join(folder, name), skipped):  # noqa: PTH118  (a million joins)
            paths += [f"{place}{os.sep}{file}" for file in files]
        ends.append((number[printable(name)], len(paths) - before))
    if not paths:
        raise UserError(
            f"{folder}: its class folders hold no image ({', '.join(sorted(SUFFIXES))}){_left_out(skipped)}"
        )
    labels = torch.tensor([label for label, _ in ends]).repeat_interleave(torch.tensor([count for _, count in ends]))
    return FileImages(str(folder), labels, paths, str(folder))


def _walk(folder: str, skipped: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below with its image files, both sorted; count the rest."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        visible = [name for name in folders if not _is_hidden(name)]
        skipped[HIDDEN] += len(folders) - len(visible)
        folders[:] = visible
        images = [file for file in files if file[file.rfind(".") :].lower() in SUFFIXES and file[0] != "."]
        if len(images) < len(files):
            skipped.update(_reason(file) for file in set(files) - set(images))
        found.append((place, sorted(images)))
    yield from sorted(found)


def _reason(file: str) -> str:
    suffix = Path(file).suffix.lower()
    return HIDDEN if file[0] == "." else f"files of suffix {printable(suffix) or 'none'}"


def _has_folders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not _is_hidden(entry.name) for entry in entries)


def _hint(train: Path, nested: Sequence[str], skipped: Counter[str]) -> str:
    way = ""
    if nested:
        inner = f"{train.name}/{nested[0]}"
        way = f"; {inner} has folders in it: if those are the classes, set data.train_split={inner}"
    return way + _left_out(skipped)


def _left_out(skipped: Counter[str]) -> str:
    shown = ", ".join(f"{count} {reason}" for reason, count in skipped.items() if count)
    return f"; left out: {shown}" if shown else ""
