"""Shows a person how a sweep goes: how far it is, what each trial is doing, the best front so far."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import ray
from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from analysis.metrics import metric, show
from pwfn.naming import is_trial
from pwfn.search.front import feasible_front
from pwfn.search.study import SearchStudy, is_baseline
from pwfn.trial.rows import Row

REFRESH_SECONDS = 1.0
LONGEST_FRONT = 8
"""Most members of the front that are shown; the report has all of them."""


def printer(console: Console) -> Callable[[str], None]:
    """Return what prints a line as it is: messages of errors have brackets, which are no markup."""
    return functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)


class Progress(tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Follows a sweep: a live panel on a terminal, one line per finished trial elsewhere.

    Use it as a context around the sweep and give it to Tune as a callback.

    Args:
        study: the study whose trials run.
        desk: the actor to which they report.
        console: the terminal or file to print to.
        ended: rows of the trials that ended before this sweep.
        num_left: number of trials that are still planned.
    """

    def __init__(self, study: SearchStudy, desk: Any, console: Console, ended: Iterable[Row], num_left: int) -> None:
        self._study = study
        self._desk = desk
        self._console = console
        self._say = printer(console)
        self._rows = list(ended)
        self._num_planned = len(self._trials) + num_left
        self._num_trained_before = self._num_trained
        self._running: dict[str, str] = {}
        self._started = self._refreshed = time.monotonic()
        self._first_trained: float | None = None
        """When the first trial began that is no baseline."""
        self._live = Live(console=console, get_renderable=self._panel, auto_refresh=False, transient=True)

    def __enter__(self) -> Progress:
        """Show the panel, if the console is a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the panel; what shall stay in sight is printed after it."""
        if kind is None:
            self._show_notes()
        self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune pickles callbacks for a restore that we do not use; a terminal cannot be pickled."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show a trial as running."""
        if not is_baseline(trial.config):
            self._first_trained = self._first_trained or time.monotonic()
        self._running[trial.config["trial_id"]] = "starting"

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count the trial, and show the row that it has written."""
        self._end(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial whose process was lost for good."""
        self._end(trial.config["trial_id"])

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ask the desk for news, once a second."""
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        self._show_notes()
        if self._live.is_started:
            rounds: dict[str, str] = ray.get(self._desk.summaries.remote())
            self._running |= {trial_id: rounds[trial_id] for trial_id in self._running if trial_id in rounds}
            self._live.refresh()

    def _show_notes(self) -> None:
        for note in ray.get(self._desk.take_notes.remote()):
            self._say(note)

    def _end(self, trial_id: str) -> None:
        self._running.pop(trial_id, None)
        points = self._study.store.read_points(trial_id)
        self._rows += points
        for row in points if not self._console.is_terminal else ():
            self._say(f"{self._counts()}: trial {row['trial_id']} {self._result(row)}")

    @property
    def _trials(self) -> list[Row]:
        """The rows that count as trials: earlier stages of a trial are no trials of their own."""
        return [row for row in self._rows if is_trial(row["trial_id"])]

    @property
    def _num_trained(self) -> int:
        return sum(not is_baseline(row) for row in self._trials)

    def _panel(self) -> Group:
        lines = [Text(f"{self._study.store.study}  {self._counts()}", style="bold")]
        lines += [Text(f"  trial {trial_id}  {state}") for trial_id, state in sorted(self._running.items())]
        members = feasible_front(self._rows, self._study.space)
        lines += [Text("front so far" if members else "no trial is on the front yet", style="bold")]
        lines += [Text(f"  {self._result(row)}") for row in members[:LONGEST_FRONT]]
        if len(members) > LONGEST_FRONT:
            lines.append(Text(f"  and {len(members) - LONGEST_FRONT} more"))
        return Group(*lines)

    def _counts(self) -> str:
        failed = sum(row["state"] == "failed" for row in self._rows)
        done, planned = len(self._trials), self._num_planned
        now = time.monotonic()
        parts = [f"{done}/{planned} done, {len(self._running)} running, {failed} failed"]
        parts.append(f"{_clock(now - self._started)} elapsed")
        trained = self._num_trained - self._num_trained_before
        if trained and self._first_trained is not None:  # baselines take a moment, and say nothing of what is left
            each = (now - self._first_trained) / trained
            parts.append(f"about {_clock(each * (planned - done))} left")
        return ", ".join(parts)

    def _result(self, row: Mapping[Any, Any]) -> str:
        if row["state"] != "complete":
            return f"{row['state']}: {row['failure_class']}: {row['failure_message']}"
        objectives = self._study.space.objectives
        names = list(objectives) if row.get("coverage") is None else [*objectives, "coverage"]
        return ", ".join(f"{metric(name).label} {show(name, row[name])}" for name in dict.fromkeys(names))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
