"""What was understood of the data, in a few lines to read and as a record to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pwfn.data.contract import Preprocessing
from pwfn.data.source import Source

NAMES_SHOWN = 6
"""First and last class names in a line, where there are more."""


def understood_data(source: Source, preprocessing: Preprocessing) -> dict[str, Any]:
    """Record what was understood: JSON for study.json.

    Args:
        source: the data, opened.
        preprocessing: as the network wants its images.
    """
    collection, splits = source.collection, source.splits
    rows = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        "source": collection.name,
        "classes": list(source.class_names),
        "class_order": collection.classes.order,
        "images": {name: _counts(source, each) for name, each in rows.items()},
        "splits": collection.roles.describe(source.config, source.test_fraction),
        "skipped": {reason: count for reason, count in collection.skipped.items() if count},
        "notes": list(collection.notes),
        "channels": source.in_channels,
        "input_size": list(preprocessing.shape),
        "interpolation": preprocessing.interpolation,
        "crop_fraction": preprocessing.crop_fraction,
        "crop_mode": preprocessing.crop_mode,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "exif_orientation": source.config.exif_orientation,
        "in_memory": source.in_memory,
    }


def data_lines(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Write a record of `understood_data` as headings and sentences."""
    _, height, width = record["input_size"]
    exif = "applied" if record["exif_orientation"] else "ignored"
    held = "prepared once and held in memory" if record["in_memory"] else "read when they are needed"
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in record["skipped"].items())
    lines = [
        ("data", f"{record['source']}; {held}"),
        ("classes", f"{len(record['classes'])}, {record['class_order']}: {shown_names(record['classes'])}"),
        ("images", "; ".join(_images(name, counts) for name, counts in record["images"].items())),
        ("splits", record["splits"]),
        ("left out", skipped or "nothing"),
        (
            "prepared",
            f"{'colour' if record['channels'] == 3 else 'grey'}, {width}x{height} pixels, {record['interpolation']}, "
            f"{record['crop_mode']} crop of {record['crop_fraction']:.4g}, mean {_numbers(record['mean'])}, standard "
            f"deviation {_numbers(record['std'])}, EXIF orientation {exif}",
        ),
    ]
    return [*lines, *(("note", note) for note in record["notes"])]


def shown_names(names: Sequence[str]) -> str:
    """Number and name the first and last classes."""
    numbered = [f"{number} {name}" for number, name in enumerate(names)]
    if len(numbered) <= 2 * NAMES_SHOWN:
        return ", ".join(numbered)
    return ", ".join([*numbered[:NAMES_SHOWN], "...", *numbered[-NAMES_SHOWN:]])


def _counts(source: Source, rows: torch.Tensor) -> dict[str, Any]:
    counts = torch.bincount(source.images.labels[rows], minlength=source.num_classes)
    names = source.class_names
    return {
        "total": len(rows),
        "smallest": [int(counts.min()), names[int(counts.argmin())]],
        "largest": [int(counts.max()), names[int(counts.argmax())]],
        "classes_without": int((counts == 0).sum()),
    }


def _images(name: str, counts: dict[str, Any]) -> str:
    (fewest, rarest), (most, commonest) = counts["smallest"], counts["largest"]
    spread = (
        f"{fewest:,} of each class" if fewest == most else f"{fewest:,} ({rarest}) to {most:,} ({commonest}) a class"
    )
    without = f", {counts['classes_without']} classes without any" if counts["classes_without"] else ""
    return f"{name} {counts['total']:,}, {spread}{without}"


def _numbers(values: Sequence[float]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return " ".join(f"{value:.4g}" for value in distinct)
