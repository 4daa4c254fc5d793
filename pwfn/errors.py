"""Errors that users or single trials can cause; any other exception is a defect of this program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Input that cannot be used; the message says where it is, what was found and what is allowed.

    The commands print the message in one line and exit with status 2. A sweep ends with it, because all further trials
    would have the same input.
    """


class TrialError(Exception):
    """One trial cannot continue (a loss that is not finite, no memory left); the sweep continues without it."""

    failure_class: str = "error"
    """Kind of the failure, as it is recorded in the trial's row."""


class MachineError(TrialError):
    """The machine failed, not the trial: its process has to end, and the trial goes on in another, best elsewhere.

    Args:
        message: what the machine said, in one line.
        failure_class: `device` (a broken GPU), `network` (between the workers of a trial), `memory` (none left to build
            the network and its data), `replicas` (they no longer agree), or that of the subclass.
    """

    def __init__(self, message: str, failure_class: str | None = None) -> None:
        super().__init__(message)
        self.failure_class = failure_class or self.failure_class

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the class of the failure when the error is pickled."""
        return type(self), (str(self), self.failure_class)


class LoaderError(MachineError):
    """The processes that decode images died or do not answer."""

    failure_class = "loader"


class NonFiniteLossError(TrialError):
    """The training loss became NaN or infinite: training diverges with this configuration."""

    failure_class = "nan"


class DivergedWeightsError(TrialError):
    """The weights became NaN, infinite or far too large: training diverges with this configuration."""

    failure_class = "nan"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if it has no message."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def nearest_names(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `; did you mean a, b?` with the known names most similar to `name`; an empty text if none is."""
    by_lower = {right.lower(): right for right in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.5)
    return f"; did you mean {', '.join(by_lower[match] for match in matches)}?" if matches else ""
