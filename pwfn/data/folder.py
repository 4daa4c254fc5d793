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
from pwfn.data.roles import choose_roles, role_of
from pwfn.errors import UserError, nearest_names

SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".gif", ".avif", ".jp2", ".j2k",
))  # fmt: skip
"""Suffixes of image files, in lower case; all are decoded by Pillow."""
SYSTEM = frozenset(("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
"""Folders that a system leaves behind; those whose name begins with a dot are skipped likewise."""
HIDDEN = "hidden or system files and folders"


def open_imagefolder(config: DataConfig, root: Path) -> Collection:
    """Open a folder of image files.

    Raises:
        UserError: splits or classes that are not there; names the folder and what was found.
    """
    try:
        return _open(config, root)
    except OSError as error:
        raise UserError(f"data.root: {printable(str(error.filename))} cannot be read: {error.strerror}") from error


def _open(config: DataConfig, root: Path) -> Collection:
    skipped: Counter[str] = Counter()
    names = _split_names(config, root)
    flat = [name for name in names if _serves(config, name) and not _has_folders(root / name)]
    hint = "".join(f"; {name} has no class folders, so its images have no labels" for name in flat)
    if not any(_serves(config, name) for name in names):
        hint += "; if these folders are the classes, set data.train_split=. data.test_fraction=0.2"
    roles = choose_roles(config, [name for name in names if name not in flat], str(root), hint=hint)
    folders = {name: root / name for name in roles.used}
    train = folders[roles.train]
    found = {name: _class_folders(folder, skipped) for name, folder in folders.items()}
    keys = {printable(name): name for name in found[roles.train]}
    classes = classes_of_names(keys, config, str(train))
    for name, folder in folders.items():
        _check_known(folder, map(printable, found[name]), classes, train)
    listed = {name: _list_files(folder, found[name], classes, skipped) for name, folder in folders.items()}
    parts = {name: images for name, (images, _) in listed.items()}
    _, nested = listed[roles.train]
    check_classes(classes, parts[roles.train].labels, str(train), _hint(train, nested, skipped))
    notes = [f"{len(nested)} class folders have folders in them, whose images count for them"] if nested else []
    notes += [f"the folder {name} has no class folders and is left out" for name in flat]
    return Collection(f"image files under {root}", roles, parts, classes, skipped=skipped, notes=tuple(notes))


def _split_names(config: DataConfig, root: Path) -> list[str]:
    """Return the folders under the root, and those farther below that a field names."""
    names = [entry.name for entry in sorted(root.iterdir()) if entry.is_dir() and not _is_hidden(entry.name)]
    fields = (config.train_split, config.validation_split, config.test_split)
    return [*names, *(name for name in dict.fromkeys(fields) if name and name not in names and (root / name).is_dir())]


def _serves(config: DataConfig, name: str) -> bool:
    """Whether a folder is a split by its name, or because a field says so."""
    return role_of(name) is not None or name in (config.train_split, config.validation_split, config.test_split)


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


def _list_files(
    folder: Path, names: Sequence[str], classes: Classes, skipped: Counter[str]
) -> tuple[FileImages, list[str]]:
    """List a split's files, class by class in the order of their numbers, in each by path.

    Also return the class folders that have folders in them.
    """
    paths: list[str] = []
    ends: list[tuple[int, int]] = []
    nested = []
    number = classes.number
    for name in sorted(names, key=lambda name: number[printable(name)]):
        before = len(paths)
        places = _walk(os.path.join(folder, name), skipped)  # noqa: PTH118
        for place, files in places:
            prefix = place + os.sep
            paths += [prefix + file for file in files]
        ends.append((number[printable(name)], len(paths) - before))
        if len(places) > 1:
            nested.append(name)
    if not paths:
        raise UserError(
            f"{folder}: its class folders hold no image ({', '.join(sorted(SUFFIXES))}){_left_out(skipped)}"
        )
    labels = torch.tensor([label for label, _ in ends]).repeat_interleave(torch.tensor([count for _, count in ends]))
    return FileImages(str(folder), labels, paths, str(folder)), nested


def _walk(folder: str, skipped: Counter[str]) -> list[tuple[str, list[str]]]:
    """List a folder and all below it with their image files, both sorted; count the rest.

    Links are followed, but not to a folder that they lie in: its images would count again and again.
    """
    found = []
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        files = []
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.is_dir():
                    files.append(entry.name)
                elif _is_hidden(entry.name):
                    skipped[HIDDEN] += 1
                elif entry.is_symlink() and _lies_in(place, entry.path):
                    skipped["links to a folder that they lie in"] += 1
                else:
                    waiting.append(entry.path)
        images = [file for file in files if file[file.rfind(".") :].lower() in SUFFIXES and file[0] != "."]
        if len(images) < len(files):
            skipped.update(_reason(file) for file in set(files) - set(images))
        images.sort()
        found.append((place, images))
    return sorted(found)


def _lies_in(place: str, folder: str) -> bool:
    inner, outer = Path(place).resolve(), Path(folder).resolve()
    return inner == outer or outer in inner.parents


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
