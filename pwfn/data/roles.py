"""Which of the splits that a data set comes with serves for training, for the search, and for the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pwfn.config import DataConfig
from pwfn.errors import UserError, nearest_names

NAMES = {
    "train": ("train", "training", "trainval", "train-standard"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names by which a split is known, in any case of the letters."""


@dataclass(frozen=True)
class Roles:
    """The name of each split; None is held out of the training images."""

    train: str
    validation: str | None
    test: str | None

    @property
    def used(self) -> tuple[str, ...]:
        """Training, test and validation split, those there are, in the order of the rows."""
        return tuple(name for name in (self.train, self.test, self.validation) if name is not None)

    def describe(self, config: DataConfig, test_fraction: float) -> str:
        """Say where each split comes from."""
        seed = "the study's seed" if config.split_seed is None else f"seed {config.split_seed}"
        held_out = f"{config.validation_fraction:.0%} of {self.train}, drawn by {seed}"
        validation = held_out if self.validation is None else f"the split {self.validation}"
        test = f"{test_fraction:.0%} of {self.train}, drawn" if self.test is None else f"the split {self.test}"
        return f"train from {self.train}, validation from {validation}, test from {test}"


def role_of(name: str) -> str | None:
    """Return the role that a split of this name has where nothing else is said."""
    return next((role for role, names in NAMES.items() if name.lower() in names), None)


def choose_roles(
    config: DataConfig, found: Sequence[str], where: str, *, may_draw_test: bool = False, hint: str = ""
) -> Roles:
    """Find the role of each split by the configuration's fields, else by its name.

    A validation split without a test split beside it is the test split, as ImageNet's is for everybody; the search
    then sees images that are held out of the training split.

    Args:
        config: fields that name splits.
        found: names of the splits that are there.
        where: the data, for messages.
        may_draw_test: test images may be held out although nobody asked for it, since the set never has any.
        hint: what else a message should say, such as splits that have no labels.

    Raises:
        UserError: a split that is not there, or several that could be meant.
    """
    train = _choose(config.train_split, "train", found, where, hint)
    if train is None:
        wanted = ", ".join(NAMES["train"][:2])
        raise UserError(
            f"data.root: {where} has no split {wanted} (found: {_list(found)}); name it in data.train_split{hint}"
        )
    validation = _choose(config.validation_split, "validation", found, where, hint, (train, config.test_split))
    test = _choose(config.test_split, "test", found, where, hint, (train, config.validation_split))
    if test is None and validation is not None and config.validation_split is None and config.test_fraction is None:
        test, validation = validation, None
    if test is None and config.test_fraction is None and not may_draw_test:
        wanted = ", ".join((*NAMES["test"][:2], *NAMES["validation"][:3]))
        raise UserError(
            f"data.root: {where} has no test images: none of the splits {wanted} (found: {_list(found)}); name it in "
            f"data.test_split, or hold some out with data.test_fraction{hint}"
        )
    return Roles(train, None if validation == train else validation, None if test == train else test)


def _choose(
    named: str | None, role: str, found: Sequence[str], where: str, hint: str, taken: Sequence[str | None] = ()
) -> str | None:
    """Take the split that a field names, else the only one of a fitting name that no other field has taken."""
    if named is not None:
        if named not in found:
            like = nearest_names(named, found)
            raise UserError(f"data.{role}_split: {where} has no split {named!r} (found: {_list(found)}){like}{hint}")
        return named
    used = [other for other in taken if other is not None]
    is_free = {name: not any(f"{other}/".startswith(f"{name}/") for other in used) for name in found}
    candidates = [name for name in found if name.lower() in NAMES[role] and is_free[name]]
    if len(candidates) > 1:
        raise UserError(f"data.{role}_split: {where} has {_list(candidates)}; name the one that is meant")
    return candidates[0] if candidates else None


def _list(names: Sequence[str]) -> str:
    shown = [*names[:8], *(["..."] if len(names) > 8 else [])]
    return ", ".join(shown) or "none"
