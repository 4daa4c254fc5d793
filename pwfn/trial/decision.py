"""What a trial is told after each of its rounds: to go on, or to end; and the type of what tells it."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any


class Decision(IntEnum):
    """What a trial is told after a round."""

    CONTINUE = 0
    PRUNE = 1
    """The trial ends here, because others are better."""
    STOP = 2
    """The trial stops because the whole sweep stops; a later sweep continues it from this round."""


RoundListener = Callable[[dict[str, Any], str], Decision]
"""A function that the first replica calls after each round with the round's row and its summary for people; it answers
whether the trial goes on."""
