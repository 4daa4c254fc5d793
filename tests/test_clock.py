"""Durations are right although the clock of the day is set in between."""

import datetime as dt
import time

from pwfn.clock import now
from pwfn.trial import attempts, rows


def test_it_is_the_time_of_day():
    assert abs((now() - dt.datetime.now(dt.UTC)).total_seconds()) < 5
    assert now().tzinfo is dt.UTC


def test_it_goes_on_evenly():
    began, ticks = now(), time.monotonic()
    time.sleep(0.2)
    assert abs((now() - began).total_seconds() - (time.monotonic() - ticks)) < 0.05


def test_attempts_and_rounds_share_it():
    """So that the rounds of a start lie within it."""
    assert attempts.now is rows.now is now
