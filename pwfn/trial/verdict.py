"""What a trial hears after each of its rounds, and who says it."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any


class Verdict(IntEnum):
    """What a trial hears after a round."""

    CONTINUE = 0
    PRUNE = 1
    """Others are better; the trial ends here."""
    STOP = 2
    """The whole sweep ends; the trial goes on from this round in the next one."""


RoundListener = Callable[[dict[str, Any], str], Verdict]
"""Given the row of each finished round, and the round in words, by the first replica; says whether to go on."""
