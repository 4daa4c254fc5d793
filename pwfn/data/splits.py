"""Which image belongs to training, validation and test: drawn once, stratified by class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.errors import UserError

TEST_FRACTION = 0.2
"""Share of the test images in sets that come without any (digits, EuroSAT)."""
TEST_SEED = 0
"""Of the draw that holds test images out: the same for everybody."""


@dataclass(frozen=True)
class Splits:
    """Rows of each split, int64 on the CPU, in the order drawn: every prefix is a stratified sample.

    Rows count through the training images, then the official test images, then the official validation images.
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def draw_splits(
    config: DataConfig,
    train_labels: Tensor,
    test_labels: Tensor | None,
    seed: int,
    validation_labels: Tensor | None = None,
    test_fraction: float = TEST_FRACTION,
) -> Splits:
    """Hold out what has no split of its own, put each split in a stratified order, and apply the limits on images.

    The validation images depend on the labels, the fraction and the seed; test images that are held out on the labels
    and the fraction only. The limits take a part of a split and move no image from one to another.

    Args:
        config: the fractions, the limits, and the seed where it is given.
        train_labels: int64 `(images,)`.
        test_labels: of the test split; None holds `test_fraction` of the training images out.
        seed: draws where `config.split_seed` is None.
        validation_labels: of the validation split; None holds `config.validation_fraction` out.
        test_fraction: share of the training images, where `test_labels` is None.

    Raises:
        UserError: a split would be empty.
    """
    generator = torch.Generator().manual_seed(seed if config.split_seed is None else config.split_seed)
    pool, held_out = torch.arange(len(train_labels)), None
    if test_labels is None:
        order = stratified_order(train_labels, torch.Generator().manual_seed(TEST_SEED))
        num_test = round(test_fraction * len(order))
        held_out, pool = order[:num_test].sort().values, order[num_test:].sort().values
        test_labels = train_labels[held_out]
    train = pool[stratified_order(train_labels[pool], generator)]
    test = stratified_order(test_labels, generator)
    test = held_out[test] if held_out is not None else test + len(train_labels)
    if validation_labels is None:
        num_validation = round(config.validation_fraction * len(pool))
        validation, train = train[:num_validation], train[num_validation:]
    else:
        first = len(train_labels) + (0 if held_out is not None else len(test_labels))
        validation = first + stratified_order(validation_labels, generator)
    _check_not_empty(config, (train, validation, test), len(pool))
    return Splits(train[: config.train_images], validation[: config.validation_images], test[: config.test_images])


def stratified_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random order of the rows in which every prefix has the classes' shares, to within one image a class.

    The i-th image of a class of n, in random order, comes at (i + 1/2) / n of the way; ties between classes fall at
    random.

    Args:
        labels: int64 `(images,)`, not negative.
        generator: on the CPU.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    classes, by_class = labels[shuffled].sort(stable=True)
    counts = torch.bincount(classes)
    first = counts.cumsum(0) - counts
    place = (torch.arange(len(labels)) - first[classes] + 0.5).double() / counts[classes]
    way = torch.empty_like(place)
    way[by_class] = place
    return shuffled[way.argsort(stable=True)]


def _check_not_empty(config: DataConfig, splits: tuple[Tensor, Tensor, Tensor], num_pool: int) -> None:
    held_out = f"data.validation_fraction={config.validation_fraction} of {num_pool} training images"
    train, validation, test = splits
    if not len(validation):
        raise UserError(f"{held_out} leaves none for validation; raise the fraction")
    if not len(train):
        raise UserError(f"{held_out} leaves none for training; lower the fraction")
    if not len(test):
        raise UserError(f"data.root: there are no test images in {config.root}")
