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


def training_transform(preprocessing: Preprocessing, augmentation: str) -> Any:
    """Return the transform for training on image files; see `DataConfig.augmentation`."""
    if augmentation == "none":
        return measuring_transform(preprocessing)
    if augmentation == "flip":
        return Compose([RandomHorizontalFlip(), measuring_transform(preprocessing)])
    return create_transform(
        input_size=preprocessing.shape,
        is_training=True,
        interpolation=preprocessing.interpolation,
        color_jitter=None,
        normalize=False,
    )


def leaves_alone(preprocessing: Preprocessing, image: Image) -> bool:
    """Whether measuring changes nothing about an image: it has the network's size, and nothing is cropped away."""
    _, height, width = preprocessing.shape
    scaled = [math.floor(side / preprocessing.crop_fraction) for side in (height, width)]
    return image.size == (width, height) and scaled == [height, width]
