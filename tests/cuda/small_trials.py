"""What the checks on the pretended device ask of the small trials in `cases.py`."""

from __future__ import annotations

import functools
from contextlib import contextmanager

import pretended_cuda  # noqa: F401  (before torch)
from cases import CASES, COMPARED, GRAPHED_STEPS, config, graphed_config, run
from pretended_cuda import ledger

import pwfn.methods.gpfq.method
import pwfn.task
import pwfn.trial.float_network

__all__ = ["CASES", "COMPARED", "GRAPHED_STEPS", "PHASES", "config", "graphed_config", "phases", "run"]

PHASES = {
    "train": (pwfn.task, "train_epoch"),
    "evaluate": (pwfn.task, "evaluate"),
    "recalibrate": (pwfn.task, "recalibrate_batchnorm"),
    "fisher": (pwfn.task, "diagonal_fisher"),
    "equalise": (pwfn.task, "equalize_"),
    "float network": (pwfn.trial.float_network, "make_baseline"),
    "calibrate": (pwfn.methods.gpfq.method.Gpfq, "fix"),
}
"""What the ledger counts apart: the functions of the library that a task calls."""


@contextmanager
def phases():
    """Inside, the ledger knows which phase of a trial asks."""

    def named(name, function):
        @functools.wraps(function)
        def inside(*args, **kwargs):
            before = ledger.phase
            ledger.phase = f"{before} {name}".removeprefix("- ")
            try:
                return function(*args, **kwargs)
            finally:
                ledger.phase = before

        return inside

    before = {name: getattr(*place) for name, place in PHASES.items()}
    for name, (module, attribute) in PHASES.items():
        setattr(module, attribute, named(name, before[name]))
    try:
        yield
    finally:
        for name, (module, attribute) in PHASES.items():
            setattr(module, attribute, before[name])
