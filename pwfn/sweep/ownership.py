"""Who runs a study: every driver has a lease in the results folder, and every trial one driver.

A driver is the process of one `pwfn search`. It takes the next number in `drivers/` by creating that file, which
succeeds for one of several, and renews what the file says while it runs. It starts only where no other driver lives, or
where the user asked to join. Drivers that share a study take each trial once: whoever creates its proposal runs it, and
a trial whose driver is gone belongs to whoever creates the next claim on it.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from pwfn.errors import UserError
from pwfn.results.files import RefusedError
from pwfn.results.store import ResultsStore
from pwfn.sweep.process import Process

log = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
LEASE_SECONDS = 60.0
"""A driver on another machine counts as gone when it has not renewed its lease for so long."""
LOOK_SECONDS = 1.0
"""Time between two looks at a lease that may expire."""
LOOKS = 5
"""Times that a lease is read before it counts as damaged."""


@dataclass(frozen=True)
class Driver:
    """One driver as its file says."""

    number: int
    process: Process
    since: dt.datetime
    renewed: dt.datetime
    expires: dt.datetime
    joined: bool
    """Whether it asked to share the study."""
    ended: bool
    token: str
    """Differs from that of any other process that tries to take the same number."""

    @property
    def lives(self) -> bool:
        """Whether it runs: known on this machine, elsewhere believed until the lease expires."""
        if self.ended:
            return False
        return self.process.runs if self.process.is_here else now() < self.expires

    def __str__(self) -> str:
        return f"{self.process} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class Ownership:
    """A driver's part in a study; made by `owned`."""

    def __init__(self, store: ResultsStore, driver: Driver) -> None:
        self._store = replace(store, patience=0)
        self._driver = driver
        self.has_company = bool(self.others())
        """Whether another driver lived when the lease was last renewed."""
        self.on_lost: Callable[[str], None] = log.error
        """Is told, in words, when another driver has taken the study over because this one seemed to be gone."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._renew_now_and_then, daemon=True)
        self._thread.start()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune pickles its searcher for a restore that we do not use."""
        return {}

    @property
    def number(self) -> int:
        """The number of this driver."""
        return self._driver.number

    def others(self) -> list[Driver]:
        """List the other drivers of the study that live."""
        return [each for each in read_drivers(self._store) if each.number != self.number and each.lives]

    def earlier(self) -> list[Driver]:
        """List the other drivers that live and came before this one; what is done once, the first one does."""
        return [each for each in self.others() if each.number < self.number]

    def take(self, trial_id: str, proposer: int | None) -> bool:
        """Take a trial that somebody has proposed, unless another driver that lives has it.

        Args:
            trial_id: of the trial.
            proposer: number of the driver that proposed it; None if that is not known.
        """
        num_claims, holder = self._holder(trial_id, proposer)
        if holder == self.number:
            return True
        if any(each.number == holder for each in self.others()):
            return False
        claim = {"driver": self.number, "token": self._driver.token}
        return self._store.create_record(f"claims/{trial_id}.{num_claims}", claim)

    def is_free(self, trial_id: str, proposer: int | None) -> bool:
        """Whether no driver that lives has a trial."""
        _, holder = self._holder(trial_id, proposer)
        return holder != self.number and all(each.number != holder for each in self.others())

    def _holder(self, trial_id: str, proposer: int | None) -> tuple[int, int | None]:
        """Count the claims on a trial, and give the number of the driver that made the last one."""
        num_claims = count_claims(self._store, trial_id)
        if num_claims == 0:
            return 0, proposer
        return num_claims, (self._store.read_record(f"claims/{trial_id}.{num_claims - 1}") or {}).get("driver")

    def end(self) -> None:
        """Say that this driver has ended."""
        self._is_over.set()
        self._thread.join()
        with suppress(UserError):
            self._store.write_record(_name(self.number), _card(replace(self._driver, ended=True, renewed=now())))

    def _renew_now_and_then(self) -> None:
        while not self._is_over.wait(RENEW_SECONDS):
            with suppress(UserError):  # the store is away, for others too
                self._renew()

    def _renew(self) -> None:
        drivers = read_drivers(self._store)
        self.has_company = any(each.number != self.number and each.lives for each in drivers)
        later = [each for each in drivers if each.number > self.number and not each.joined]
        if later:
            self.on_lost(f"{later[-1]} has taken the study over, because this process had not renewed its lease")
        moment = now()
        self._driver = replace(self._driver, renewed=moment, expires=moment + dt.timedelta(seconds=LEASE_SECONDS))
        self._store.write_record(_name(self.number), _card(self._driver))


@contextmanager
def owned(store: ResultsStore, *, join: bool, say: Callable[[str], None]) -> Iterator[Ownership]:
    """Be a driver of a study inside the context; leave nothing behind where no study was begun in it.

    Args:
        store: of the study; its folder is made.
        join: whether to share the study with drivers that live.
        say: is told whose place this driver takes, or for whom it waits.

    Raises:
        UserError: another driver lives, and `join` is false.
    """
    made = store.create_folder("drivers")
    ownership = None
    try:
        ownership = Ownership(store, _take_number(store, join, say))
        yield ownership
    finally:
        if ownership is not None:
            ownership.end()
        with suppress(UserError):
            if store.read_study() is None:
                if ownership is not None:
                    store.delete_record(_name(ownership.number))
                store.delete_empty_folders(made)


def read_drivers(store: ResultsStore) -> list[Driver]:
    """Read the drivers of a study, by number.

    Raises:
        UserError: a file is no driver's.
    """
    found = (_read(store, name) for name in store.record_names("drivers"))
    return sorted(filter(None, found), key=lambda each: each.number)


def _read(store: ResultsStore, name: str) -> Driver | None:
    """Read one driver; None if the file has just been deleted. Some stores show a part while it is replaced."""
    reason: Exception | None = None
    for _ in range(LOOKS):
        try:
            card = store.read_record(f"drivers/{name}")
            return None if card is None else _driver(int(name), card)
        except RefusedError:
            raise
        except (UserError, KeyError, TypeError, ValueError) as error:
            reason = error
            time.sleep(LOOK_SECONDS / LOOKS)
    raise UserError(
        f"{store.results}/{store.study}: drivers/{name}.json is not the lease of a search ({reason}); "
        "delete it if no search of this study runs"
    )


def count_claims(store: ResultsStore, trial_id: str) -> int:
    """Count the claims on a trial, which are numbered from 0."""
    found = (name.rpartition(".") for name in store.record_names("claims"))
    return 1 + max((int(index) for of, _, index in found if of == trial_id and index.isdecimal()), default=-1)


def now() -> dt.datetime:
    """The present time by the clock of the day, which machines share; `pwfn.clock` stands while one of them sleeps."""
    return dt.datetime.now(dt.UTC)


def _take_number(store: ResultsStore, join: bool, say: Callable[[str], None]) -> Driver:
    """Become the driver with the next number.

    If that number is taken meanwhile, whoever has it was not looked at yet; and so was whoever has a higher one.
    """
    while True:
        before = read_drivers(store)
        if not join:
            _require_gone(store, before, say)
        number = max((int(each) for each in store.record_names("drivers") if each.isdecimal()), default=-1) + 1
        moment = now()
        expires = moment + dt.timedelta(seconds=LEASE_SECONDS)
        mine = Driver(number, Process.here(), moment, moment, expires, join, False, secrets.token_hex(8))
        if not store.create_record(_name(number), _card(mine)):
            continue
        if any(each.number > number for each in read_drivers(store)):
            store.write_record(_name(number), _card(replace(mine, ended=True)))
            continue
        for each in before:
            if not each.lives:
                if not each.ended and not join:
                    say(f"goes on in the place of {each}, which {_why_gone(each)}")
                store.delete_record(_name(each.number))
        return mine


def _require_gone(store: ResultsStore, drivers: list[Driver], say: Callable[[str], None]) -> None:
    """Return when none of these lives any more; wait for a lease of another machine until it is renewed or expires.

    Raises:
        UserError: one of them lives.
    """
    for driver in drivers:
        if driver.lives and not driver.process.is_here:
            say(f"{driver} has this study; looking whether it still lives, for at most {LEASE_SECONDS:.0f} s")
        if driver.lives and not _ends_in_time(store, driver):
            raise UserError(
                f"{store.results}/{store.study} is run by {driver}; wait for its end, or add --join to share the study"
            )


def _ends_in_time(store: ResultsStore, driver: Driver) -> bool:
    if driver.process.is_here:
        return False
    started = time.monotonic()
    while time.monotonic() - started < LEASE_SECONDS:
        current = next((each for each in read_drivers(store) if each.number == driver.number), None)
        if current is None or not current.lives:
            return True
        if current.renewed != driver.renewed:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _why_gone(driver: Driver) -> str:
    return "no longer runs" if driver.process.is_here else f"last renewed its lease {driver.renewed:%Y-%m-%d %H:%M:%S}"


def _name(number: int) -> str:
    return f"drivers/{number:04d}"


def _card(driver: Driver) -> dict[str, Any]:
    return {
        **driver.process._asdict(),
        **{name: getattr(driver, name).isoformat() for name in ("since", "renewed", "expires")},
        **{name: getattr(driver, name) for name in ("joined", "ended", "token")},
    }


def _driver(number: int, card: dict[str, Any]) -> Driver:
    since, renewed, expires = (dt.datetime.fromisoformat(card[name]) for name in ("since", "renewed", "expires"))
    joined, ended = (bool(card[name]) for name in ("joined", "ended"))
    return Driver(number, Process.read(card), since, renewed, expires, joined, ended, str(card["token"]))
