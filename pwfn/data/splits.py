"""Which image belongs to training, validation and test: drawn once, stratified by class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.errors import UserError


@dataclass(frozen=True)
class Splits:
    """Rows of each split, int64 on the CPU, in the order drawn: every prefix is a stratified sample.

    `train` and `validation` are rows of the training images, `test` of the test images.
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def draw_splits(config: DataConfig, pool_labels: Tensor, test_labels: Tensor, seed: int) -> Splits:
    """Hold `validation_fraction` of the training images out for validation, and apply the limits on images.

    The split depends on the labels, the fraction and the seed; the limits take a part of it and move no image from
    one split to another.

    Raises:
        UserError: a split would be empty.
    """
    generator = torch.Generator().manual_seed(seed if config.split_seed is None else config.split_seed)
    pool = stratified_order(pool_labels, generator)
    test = stratified_order(test_labels, generator)
    num_validation = round(config.validation_fraction * len(pool))
    splits = Splits(
        train=pool[num_validation:][: config.train_images],
        validation=pool[:num_validation][: config.validation_images],
        test=test[: config.test_images],
    )
    _check_not_empty(config, splits, len(pool))
    return splits


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


def _check_not_empty(config: DataConfig, splits: Splits, num_pool: int) -> None:
    held_out = f"data.validation_fraction={config.validation_fraction} of {num_pool} training images"
    if not len(splits.validation):
        raise UserError(f"{held_out} leaves none for validation; raise the fraction")
    if not len(splits.train):
        raise UserError(f"{held_out} leaves none for training; lower the fraction")
    if not len(splits.test):
        raise UserError(f"data.root: there are no test images in {config.root}")
