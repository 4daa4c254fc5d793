"""Timm's pre-processing, for every source alike: 8-bit images in, 8-bit tensors of the network's size out.

Only the normalisation is left to the device (`Data._normalise`), since bytes travel faster than floats.
"""

from __future__ import annotations

import math
from typing import Any

from PIL.Image import Image
from timm.data import create_transform
from torchvision.transforms import Compose, RandomHorizontalFlip

from pwfn.data.contract import Preprocessing
from pwfn.errors import UserError, first_line


def measuring_transform(preprocessing: Preprocessing) -> Any:
    """Return the transform for measuring: a Pillow image to uint8 `(channels, height, width)`."""
    return create_transform(
        input_size=preprocessing.shape,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        crop_pct=preprocessing.crop_fraction,
        crop_mode=preprocessing.crop_mode,
        normalize=False,
    )


def training_transform(preprocessing: Preprocessing, augmentation: str, auto_augment: str | None = None) -> Any:
    """Return the transform for training on image files; see `DataConfig.augmentation` and `BaselineConfig.aa`.

    Raises:
        UserError: timm has no such automatic augmentation.
    """
    if augmentation == "crop_flip":
        transform = create_transform(
            input_size=preprocessing.shape,
            is_training=True,
            interpolation=preprocessing.interpolation,
            color_jitter=None,
            normalize=False,
        )
    else:
        transform = measuring_transform(preprocessing)
    steps = [RandomHorizontalFlip()] if augmentation == "flip" else []
    if auto_augment is None and not steps:
        return transform
    *before, to_tensor = transform.transforms
    automatic = [] if auto_augment is None else [automatic_augmentation(preprocessing, auto_augment)]
    return Compose([*steps, *before, *automatic, to_tensor])


def automatic_augmentation(preprocessing: Preprocessing, notation: str) -> Any:
    """Return timm's automatic augmentation: it changes a Pillow image of the network's size.

    Args:
        preprocessing: of the network; its mean colour fills what comes in at the border.
        notation: timm's, such as rand-m9-mstd0.5-inc1.

    Raises:
        UserError: timm has none of this notation.
    """
    try:
        _check_sections(notation)
        _, automatic, _ = create_transform(
            input_size=preprocessing.shape,
            is_training=True,
            auto_augment=notation,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            normalize=False,
            separate=True,
        )
    except (AssertionError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"baseline.aa: timm has no automatic augmentation {notation!r} ({first_line(error) or 'unknown name'}); "
            "use a notation such as rand-m9-mstd0.5-inc1, augmix-m5-w4-d2 or original-mstd0.5"
        ) from error
    return automatic


def _check_sections(notation: str) -> None:
    """Refuse what timm passes over in silence: a section without a number, such as `mstd` for `mstd0.5`.

    Raises:
        ValueError: names the section.
    """
    for section in notation.split("-")[1:]:
        if not any(character.isdigit() for character in section) and not section.startswith("t"):  # names of operations
            raise ValueError(f"{section!r} has no number")


def leaves_alone(preprocessing: Preprocessing, image: Image) -> bool:
    """Whether measuring changes nothing about an image: it has the network's size, and nothing is cropped away."""
    _, height, width = preprocessing.shape
    scaled = [math.floor(side / preprocessing.crop_fraction) for side in (height, width)]
    return image.size == (width, height) and scaled == [height, width]
