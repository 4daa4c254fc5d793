"""Classes by name wherever data meets a network: numbers alone would agree silently, and be wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import nn

from pwfn.config import TrialConfig
from pwfn.data.classes import classes_of_names, other_names
from pwfn.data.source import Source
from pwfn.data.understood import shown_names
from pwfn.errors import UserError
from pwfn.paths import expand_path
from pwfn.training import Accuracy

log = logging.getLogger(__name__)

KEYS = ("classes", "class_names", "label_names")
"""Under which a checkpoint's card, or the header of a safetensors file, names the classes."""
NEAR_CHANCE = 0.1
"""A network is near chance if it gets less than this share of the way from chance to perfect."""
STANDARD_ERRORS = 2.0
"""Or if its accuracy is within so many standard errors of chance, where the images are few."""


def loads_weights(config: TrialConfig) -> bool:
    """Whether a trial's float network starts from weights that somebody trained before."""
    return config.model.pretrained or config.model.checkpoint is not None


def check_names(config: TrialConfig, source: Source, network: nn.Module) -> None:
    """Compare the classes of the data with those that the weights were trained on, by name.

    Raises:
        UserError: they differ; or nothing names the network's, and those of the data could be in either order.
    """
    if not loads_weights(config):
        return
    known, where = _named(config, network)
    if known is not None:
        difference = other_names(known, source.class_names)
        if difference is not None:
            raise UserError(f"classes: {where} and the data differ: {difference}{_way_out(config, source, known)}")
    elif source.collection.classes.is_open:
        natural, lexical = (_ordered(config, source, order) for order in ("natural", "lexical"))
        words = (
            f"the class names sort differently in natural ({shown_names(natural)}) and in lexical order "
            f"({shown_names(lexical)}), and nothing says which order the weights of {config.model.name} were trained in"
        )
        if config.baseline.epochs == 0:
            raise UserError(
                f"data.class_order: {words}; set natural (timm's reader) or lexical (torchvision's), or data.class_map"
            )
        log.warning("data.class_order: %s; training begins with %s", words, "lexical")


def check_beats_chance(config: TrialConfig, source: Source, accuracy: Accuracy) -> None:
    """Stop where a network that was loaded knows no more of its images than chance does.

    A network that is trained first (`baseline.epochs`), or that nobody trained, may be as bad as it is.

    Raises:
        UserError: says how accurate it is, and why that can be.
    """
    if not loads_weights(config) or config.baseline.epochs > 0 or config.baseline.allow_chance:
        return
    labels = source.images.labels[source.splits.validation]
    chance = float(labels.bincount().max()) / len(labels)
    error = (chance * (1 - chance) / len(labels)) ** 0.5
    if accuracy.top1 >= chance + max(NEAR_CHANCE * (1 - chance), STANDARD_ERRORS * error):
        return
    order = source.collection.classes.order
    raise UserError(
        f"the float network {config.model.name} gets {accuracy.top1:.2%} of the validation images right, which is near "
        f"chance ({chance:.2%}); likely reasons: classes in another order (here: {order}; data.class_order, "
        "data.class_map), another pre-processing (data.image_size, crop_mode), a new head that is not trained (train "
        "it with baseline.epochs), or weights for other images; to go on nevertheless: baseline.allow_chance=true"
    )


def check_same_names(kept: Sequence[str] | None, source: Source, where: str) -> None:
    """Compare the classes of the data with those that something kept has recorded; nothing recorded is no difference.

    Raises:
        UserError: names the first difference.
    """
    difference = None if kept is None else other_names(kept, source.class_names)
    if difference is not None:
        raise UserError(f"classes: {where} and the data differ: {difference}; see data.class_order and data.class_map")


def names_beside(checkpoint: Path) -> tuple[str, ...] | None:
    """Return the classes that a checkpoint's card (the same name, `.json`) or its own header names, or None."""
    card = checkpoint.with_suffix(".json")
    try:
        found = _from(json.loads(card.read_text(encoding="utf-8"))) if card.is_file() else None
    except ValueError:
        found = None
    if found is None and checkpoint.suffix == ".safetensors":
        found = _from(_header(checkpoint))
    return found


def _named(config: TrialConfig, network: Any) -> tuple[tuple[str, ...] | None, str]:
    """Return the classes that the weights know by name, and who says so."""
    if config.model.checkpoint is not None:
        path = expand_path(config.model.checkpoint, "model.checkpoint")
        return names_beside(path), f"the card of {path.name}"
    record = dict(network.pretrained_cfg)
    found = _from(record)
    of_this_head = found is not None and record.get("num_classes", len(found)) == network.num_classes
    return (found if of_this_head else None), f"the record of {config.model.name}"


def _from(record: Any) -> tuple[str, ...] | None:
    for key in KEYS if isinstance(record, dict) else ():
        names = record.get(key)
        if isinstance(names, str) and names.startswith("["):
            names = json.loads(names)
        if isinstance(names, dict):  # name -> number
            names = sorted(names, key=lambda name: names[name])
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def _header(checkpoint: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(checkpoint, "pt") as file:
            return dict(file.metadata() or {})
    except Exception:  # what is wrong with the file is said where its weights are read
        return {}


def _ordered(config: TrialConfig, source: Source, order: str) -> tuple[str, ...]:
    chosen = config.data.model_copy(update={"class_order": order, "class_map": None})
    return classes_of_names(source.class_names, chosen, "the data").names


def _way_out(config: TrialConfig, source: Source, known: Sequence[str]) -> str:
    for order in ("natural", "lexical"):
        if list(_ordered(config, source, order)) == list(known) and source.collection.classes.is_open:
            return f"; set data.class_order={order}"
    return "; give the network's order in data.class_map"
