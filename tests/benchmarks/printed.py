"""What benchmarks print: the hardware, numbers with their spread."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch


def hardware(device: str) -> str:
    """The name of a torch device; of a CPU with the number of its logical cores."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(models)} x {models[0].partition(': ')[2]}" if models else platform.processor()


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Mean +- standard deviation; of one value just that, since one seed shows no spread."""
    deviation = f" +- {form.format(stdev(values))}" if len(values) > 1 else ""
    return form.format(mean(values)) + deviation


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean; not a number for one value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
