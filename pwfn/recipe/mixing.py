"""Mixup, CutMix and random erasing: changes of whole batches of normalised images, on their device."""

from __future__ import annotations

from collections.abc import Iterator

from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from pwfn.config import BaselineConfig
from pwfn.errors import UserError
from pwfn.seeds import derive_seed, seeded_globally
from pwfn.training import Batches


class Mixing:
    """Changes the batches of an epoch; what happens to a batch depends on its seed and its place alone.

    Args:
        config: of the training.
        num_classes: classes of the data.
    """

    def __init__(self, config: BaselineConfig, num_classes: int) -> None:
        self._num_classes = num_classes
        self._mixup = (
            Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                prob=config.mixup_prob,
                switch_prob=config.mixup_switch_prob,
                mode=config.mixup_mode,
                label_smoothing=config.smoothing,
                num_classes=num_classes,
            )
            if config.mixes
            else None
        )
        self._erasing = config

    def __call__(self, batches: Batches, seed: int, first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the changed batches; mixed ones have soft targets, float32 `(batch, classes)`, in place of labels.

        Args:
            batches: of one epoch, from step `first_step` on.
            seed: of this epoch on this replica.
            first_step: place of the first batch in the epoch.

        Raises:
            UserError: a batch with an odd number of images, which cannot be mixed in pairs.
        """
        for step, (images, labels) in enumerate(batches, first_step):
            with seeded_globally(derive_seed(seed, step)):
                changed = self._changed(images, labels)
            yield changed

    def _changed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        config = self._erasing
        if config.reprob > 0:
            erase = RandomErasing(
                config.reprob, mode=config.remode, max_count=config.recount, device=str(images.device)
            )
            images = erase(images)
        if self._mixup is not None:
            if len(images) % 2:
                raise UserError(
                    f"baseline.mixup and cutmix mix images in pairs, but a batch has {len(images)} images; use an even "
                    "baseline.batch_size that is not larger than the training set"
                )
            images, labels = self._mixup(images, labels)
        return images, labels
