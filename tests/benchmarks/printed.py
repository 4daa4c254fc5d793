"""What benchmarks print: the conditions of a run, and numbers with their spread."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

from pwfn.trial.rows import commit


def conditions(device: str = "cpu", threads: int = 1) -> str:
    """One line on hardware, threads, versions, commit and load, for the head of a table."""
    return (
        f"{hardware(device)}; {threads} thread(s); Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}; commit {commit()}; load {os.getloadavg()[0]:.1f} before the start"
    )


def hardware(device: str) -> str:
    """Name of a torch device; a CPU's with the number of its logical cores."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{len(models)} x {models[0].partition(': ')[2]}" if models else platform.processor()


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Mean +- standard deviation; for one value the value alone."""
    deviation = f" +- {form.replace('+', '').format(stdev(values))}" if len(values) > 1 else ""
    return form.format(mean(values)) + deviation


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean; NaN for one value."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
