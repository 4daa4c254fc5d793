"""scikit-learn's 1,797 handwritten digits of 8x8 pixels: real images that need no download."""

from __future__ import annotations

import torch

from pwfn.config import DataConfig
from pwfn.data.classes import classes_of_numbers
from pwfn.data.collection import Collection
from pwfn.data.images import ArrayImages
from pwfn.data.roles import Roles


def open_digits(config: DataConfig) -> Collection:
    """Open the digits; grey levels 0..16 become 0..255."""
    from sklearn.datasets import load_digits  # a second of import that other data sets do without

    digits = load_digits()
    pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    names = [str(name) for name in digits.target_names]
    classes, numbers = classes_of_numbers(labels, names, config, "digits")
    images = ArrayImages("digits", numbers[labels], pixels)
    return Collection(
        "scikit-learn's digits", Roles("train", None, None), {"train": images}, classes, channels=1, is_small=True
    )
