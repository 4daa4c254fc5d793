"""The time of day, without the jumps of a clock that is set: differences of it are durations."""

from __future__ import annotations

import datetime as dt
import time

_BEGAN = dt.datetime.now(dt.UTC)
_TICKS = time.monotonic()


def now() -> dt.datetime:
    """Return the time at which this process began, by the clock of the day, and what has passed since."""
    return _BEGAN + dt.timedelta(seconds=time.monotonic() - _TICKS)
