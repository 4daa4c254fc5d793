"""The errors a user can cause; everything else is a defect of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Input that cannot be used; the message says where, what was found and what is allowed.

    The commands print it as one line and exit with status 2; a sweep ends with it, since every further trial would
    meet the same input.
    """


class TrialError(Exception):
    """One trial cannot go on (a loss that is not finite, no memory left); the sweep goes on without it."""

    failure_class: str = "error"


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
    """The processes that decode images died or hang."""

    failure_class = "loader"


class NonFiniteLossError(TrialError):
    """The training loss became NaN or infinite: the configuration diverges."""

    failure_class = "nan"


class DivergedWeightsError(TrialError):
    """The weights became NaN, infinite or absurdly large: the configuration diverges."""

    failure_class = "nan"


def first_line(error: Exception) -> str:
    """Return what a library's exception says, in one line; its type where it says nothing."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def nearest_names(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `; did you mean a, b?` with the known names most like a misspelt one, or nothing where none is like it."""
    by_lower = {right.lower(): right for right in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.5)
    return f"; did you mean {', '.join(by_lower[match] for match in matches)}?" if matches else ""
