"""scikit-learn's 1,797 handwritten digits of 8x8 pixels: real images that need no download."""

from __future__ import annotations

import torch
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data.fingerprint import digest_array
from pwfn.data.memory import ImageSet, MemorySource
from pwfn.data.splits import stratified_order

TEST_FRACTION = 0.2
TEST_SEED = 0
"""The set has no official test images: one draw, the same for everybody."""


def open_digits(config: DataConfig, seed: int) -> MemorySource:
    """Open the digits; grey levels 0..16 become 0..255."""
    from sklearn.datasets import load_digits  # a second of import that other data sets do without

    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(digits.target).long()
    order = stratified_order(labels, torch.Generator().manual_seed(TEST_SEED))
    num_test = round(TEST_FRACTION * len(order))
    test, pool = order[:num_test].sort().values, order[num_test:].sort().values
    return MemorySource(
        config,
        _image_set("digits", images[pool], labels[pool]),
        _image_set("digits (test)", images[test], labels[test]),
        class_names=tuple(str(name) for name in digits.target_names),
        seed=seed,
    )


def _image_set(name: str, images: Tensor, labels: Tensor) -> ImageSet:
    _, channels, height, width = images.shape
    return ImageSet(name, labels, (channels, height, width), lambda rows: images[rows], lambda: digest_array(images))
