"""The rows that a trial writes, made from its configuration and the records of its rounds."""

from __future__ import annotations

import dataclasses
import functools
import json
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from pwfn import __version__
from pwfn.clock import now
from pwfn.config import TrialConfig
from pwfn.results.configuration import config_columns
from pwfn.trial.attempts import Cost

if TYPE_CHECKING:  # these need torch, which a driver does without
    from pwfn.methods import RoundRecord
    from pwfn.training import Accuracy

Row = dict[str, Any]

PACKAGES = ("torch", "timm", "ray", "optuna", "numpy", "pyarrow")


@dataclass(frozen=True)
class Trial:
    """One trial: a configuration and its place in a study."""

    trial_id: str
    number: int | None
    """None for a trial that no search has proposed."""
    study: str
    config: TrialConfig

    @property
    def num_gpus(self) -> float:
        """GPUs that it holds while it runs."""
        return self.config.resources.workers * self.config.resources.gpus_per_worker

    @property
    def identity(self) -> Row:
        """The columns with which every row of this trial begins."""
        return {
            "trial_id": self.trial_id,
            "number": self.number,
            "study": self.study,
            "method": self.config.method.name,
        }


def round_row(trial: Trial, record: RoundRecord) -> Row:
    """Build the row of one round."""
    fixing = record.fixing
    seconds = ("train_seconds", "data_seconds", "fix_seconds", "eval_seconds")
    return {
        **trial.identity,
        **{
            name: getattr(record, name) for name in ("round", "num_rounds", "stage", "fraction", "train_loss", *seconds)
        },
        **{name: getattr(fixing, name) for name in ("num_fixed", "untreated_layers")},
        "method_numbers": fixing.numbers,
        **accuracy_columns("val", record.before, "_before"),
        **accuracy_columns("val", record.after),
        **dataclasses.asdict(record.metrics),
        "finished_at": now(),
    }


def accuracy_columns(split: str, accuracy: Accuracy | None, suffix: str = "") -> Row:
    """Name the two numbers of an accuracy as columns (`val_top1`, `val_top5`); an empty row for None."""
    if accuracy is None:
        return {}
    return {f"{split}_top1{suffix}": accuracy.top1, f"{split}_top5{suffix}": accuracy.top5}


def trial_row(trial: Trial, outcome: Row, cost: Cost | None = None) -> Row:
    """Build a point's row from how it ended: configuration, outcome, cost (None: not known) and where it ran."""
    config = trial.config
    return {
        **trial.identity,
        "model": config.model.name,
        "data": config.data.dataset or (Path(config.data.root).name if config.data.root else config.data.name),
        "seed": config.seed,
        "config_json": config.model_dump_json(),
        **config_columns(config),
        **outcome,
        **({} if cost is None else cost._asdict()),
        "host": socket.gethostname(),
        "versions_json": json.dumps(versions()),
        "commit": commit(),
    }


@functools.cache
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that compute; pwfn itself need not be installed."""
    return {"python": python_version(), "pwfn": __version__, **{name: version(name) for name in PACKAGES}}


@functools.cache
def commit() -> str | None:
    """The commit of the running program, with `+changes` where the checkout differs from it; None outside one.

    An environment may lie inside a repository of something else, so only one that tracks this file counts.
    """
    file = Path(__file__)
    git = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=10, cwd=file.parent)
    try:
        git(["git", "ls-files", "--error-unmatch", file.name])
        return git(["git", "describe", "--always", "--abbrev=12", "--dirty=+changes"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
