"""Which float network a trial starts from, by its key, and how far its training is. Needs no torch: drivers use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pwfn.config import BaselineConfig, DataConfig, TrialConfig
from pwfn.seeds import derive_seed

MAX_NAME = 100
"""Largest number of characters of a model's name in the name of a file."""

LATER_FIELDS = {"kwargs": {}, "ema": False, "new_head": False, "fuse": False}
"""Fields that were added to `ModelConfig` later, with the values that stand for the time before. A field with this
value does not enter the key, so that the keys of older studies stay valid."""

LATER_FIELDS_OF_BASELINE = (
    "opt", "opt_kwargs", "layer_decay", "sched", "warmup_epochs", "warmup_lr", "min_lr", "cooldown_epochs",
    "decay_epochs", "decay_milestones", "decay_rate", "smoothing", "mixup", "cutmix", "mixup_prob", "mixup_switch_prob",
    "mixup_mode", "aa", "reprob", "remode", "recount", "augment_epochs", "model_ema", "model_ema_decay",
    "model_ema_warmup", "teacher", "distillation", "temperature", "precision",
)  # fmt: skip
"""The same for `BaselineConfig`; their defaults stand for the time before."""

OF_THE_MACHINE = ("loader_workers", "loader_timeout", "cache")
"""Fields of `DataConfig` that change no image: they count as if they had their defaults."""


def baseline_key(config: TrialConfig) -> str:
    """Return the key of the float network that a trial starts from.

    Trials that differ only in how they compress the network have the same key.
    """
    without = {"equalize", "random"}  # equalize changes the network later; random only permits it
    without |= {name for name, before in LATER_FIELDS.items() if getattr(config.model, name) == before}
    data = config.data.model_copy(update={name: DataConfig.model_fields[name].default for name in OF_THE_MACHINE})
    fields = BaselineConfig.model_fields
    unchanged = {
        name
        for name in LATER_FIELDS_OF_BASELINE
        if getattr(config.baseline, name) == fields[name].get_default(call_default_factory=True)
    }
    digest = derive_seed(
        config.model.model_dump_json(exclude=without),
        data.model_dump_json(),
        config.baseline.model_dump_json(exclude=unchanged),
    )
    return f"{file_name(config.model.name)}-{digest:016x}"


def file_name(name: str) -> str:
    """Turn the name of a model (`hf-hub:timm/resnet18`, `local-dir:/my/net`) into a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:MAX_NAME].strip("_")


@dataclass(frozen=True)
class FloatProgress:
    """How far the training of a float network is."""

    network: str
    """Its name."""
    epochs_done: float
    """The running epoch counts as the share of its steps that are done."""
    num_epochs: int
    loss: float | None
    """Mean loss of the last whole epoch; None before the first has ended."""


Tell = Callable[[FloatProgress], None]
"""Takes the progress after each training step."""


def nobody_is_told(progress: FloatProgress) -> None:
    """Take the progress of a training that nobody watches."""
