"""Which class has which number: by name, by the order of the names, or by a map; never by chance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.data.readers.class_map import load_class_map
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.errors import UserError, nearest_names
from pwfn.paths import expand_path

SHOWN = 5
"""Names that a message lists."""


@dataclass(frozen=True)
class Classes:
    """The names of all classes, each at its number."""

    names: tuple[str, ...]
    order: str
    """Where the numbers come from, in words."""
    is_open: bool = False
    """Whether natural and lexical order differ and nobody has chosen one."""
    from_map: bool = False
    """Whether a class map names them; only then may there be classes without a training image."""

    @property
    def number(self) -> dict[str, int]:
        """Number of each name."""
        return {name: number for number, name in enumerate(self.names)}


def natural_key(name: str) -> list[str | int]:
    """Return timm's key, by which its reader sorts folders: numbers inside a name as numbers, case ignored.

    Own code, since timm's fails for signs that are digits but no decimal ones, such as a superscript.
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def classes_of_names(found: Iterable[str], config: DataConfig, where: str) -> Classes:
    """Order classes that are known by name only, such as folders.

    Raises:
        UserError: a class map that cannot be used or lacks one of the names.
    """
    found = set(found)
    if config.class_map is not None:
        return _mapped(found, config.class_map, where)
    lexical, natural = sorted(found), sorted(sorted(found), key=natural_key)
    names = natural if config.class_order == "natural" else lexical
    order = "names in natural and in lexical order alike"
    if natural != lexical:
        order = f"names in {config.class_order or 'lexical'} order (the other order differs)"
    return Classes(tuple(names), order, is_open=natural != lexical and config.class_order is None)


def classes_of_numbers(
    labels: Tensor, names: Sequence[str] | None, config: DataConfig, where: str
) -> tuple[Classes, Tensor]:
    """Name classes that the data gives by number, and return each old number's new one, int64 `(classes,)`.

    Args:
        labels: all that occur, of every split; int64.
        names: of the numbers from 0 on, as the data itself records them.
        config: a class map gives named classes other numbers; for nameless ones it gives the names.
        where: the data, for messages.

    Raises:
        UserError: a number without a class, a gap between the numbers, or an order that is asked for.
    """
    if config.class_order is not None:
        raise UserError(
            f"data.class_order: {where} gives its classes by number, so there are no names to sort; leave it out, or "
            "give other numbers in data.class_map"
        )
    present = torch.unique(labels)
    mapped = None
    if config.class_map is not None:
        mapped = _mapped(set(names or ()), config.class_map, where)
    if names is None and mapped is not None:
        names = mapped.names
    if names is None:
        _check_no_gap(present, where)
        names = [str(number) for number in range(len(present))]
    outside = present[(present < 0) | (present >= len(names))]
    if len(outside):
        raise UserError(
            f"{where}: label {int(outside[0])} is outside 0..{len(names) - 1} ({len(names)} classes: {_some(names)})"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"{where}: two classes have the name {twice!r}; give data.class_map")
    if mapped is None:
        return Classes(tuple(names), "numbers of the data"), torch.arange(len(names))
    return mapped, torch.tensor([mapped.number[name] for name in names])


def check_classes(classes: Classes, train_labels: Tensor, where: str, hint: str = "") -> None:
    """Refuse data that cannot teach its classes apart.

    Raises:
        UserError: a single class, or one without a training image that no class map names.
    """
    if len(classes.names) < 2:
        raise UserError(f"{where}: a single class ({_some(classes.names)}), so there is nothing to tell apart{hint}")
    if classes.from_map:
        return
    counts = torch.bincount(train_labels, minlength=len(classes.names))
    empty = [name for name, count in zip(classes.names, counts.tolist(), strict=True) if count == 0]
    if empty:
        raise UserError(
            f"{where}: {len(empty)} of {len(classes.names)} classes have no training image ({_some(empty)}); remove "
            f"them, or name all classes in data.class_map{hint}"
        )


def other_names(ours: Sequence[str], theirs: Sequence[str]) -> str | None:
    """Say how two lists of class names differ, or None where they agree."""
    if list(ours) == list(theirs):
        return None
    if set(ours) == set(theirs):
        first = next(number for number, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        return f"the same {len(ours)} names in another order, class {first} is {theirs[first]!r} and {ours[first]!r}"
    if len(ours) != len(theirs):
        return f"{len(theirs)} classes ({_some(theirs)}) and {len(ours)} ({_some(ours)})"
    first = next(number for number, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    return f"class {first} is {theirs[first]!r} and {ours[first]!r}"


def read_class_map(text: str) -> tuple[str, ...]:
    """Read a class map: timm's text, a name per line, or JSON, a list of names or numbers by name.

    Raises:
        UserError: a file that cannot be read, or numbers that are not 0, 1, 2, ...
    """
    path = expand_path(text, "data.class_map")
    where = f"data.class_map: {path}"
    if path.suffix.lower() not in (".txt", ".json"):
        raise UserError(f"{where} has the suffix {path.suffix!r}; allowed are .txt (a name per line) and .json")
    try:
        if path.suffix.lower() == ".txt":
            numbers = load_class_map(str(path))
            num_lines = len(path.read_text(encoding="utf-8").splitlines())
            if num_lines != len(numbers):
                raise UserError(f"{where}: {num_lines} lines, but {len(numbers)} different names")
        else:
            numbers = _numbers(json.loads(path.read_text(encoding="utf-8")), where)
    except (OSError, AssertionError, ValueError) as error:
        raise UserError(f"{where} cannot be read: {error or 'no such file'}") from error
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise UserError(f"{where}: its numbers are not 0..{len(numbers) - 1}, each once")
    return tuple(sorted(numbers, key=lambda name: numbers[name]))


def _numbers(content: object, where: str) -> dict[str, int]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        if len(set(content)) < len(content):
            raise UserError(f"{where}: a name comes twice")
        return {name: number for number, name in enumerate(content)}
    if isinstance(content, Mapping) and all(type(number) is int for number in content.values()):
        return dict(content)
    raise UserError(f"{where} is neither a list of names nor an object of numbers by name")


def _mapped(found: set[str], text: str, where: str) -> Classes:
    names = read_class_map(text)
    for unknown in sorted(found - set(names)):
        raise UserError(f"data.class_map: {text} lacks the class {unknown!r} of {where}{nearest_names(unknown, names)}")
    return Classes(names, f"class map {Path(text).name}", from_map=True)


def _check_no_gap(present: Tensor, where: str) -> None:
    """Without names, the numbers are all there is: they have to be 0, 1, 2, ... without a gap."""
    expected = torch.arange(len(present))
    if torch.equal(present, expected):
        return
    first = int((present != expected).int().argmax())
    below = f"{int(present[first - 1])} to {int(present[first])}" if first else f"the first is {int(present[first])}"
    raise UserError(
        f"{where}: the labels have a gap ({below}; {len(present)} different ones, so 0..{len(present) - 1} is expected)"
        "; renumber them, or name all classes in data.class_map"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])])
