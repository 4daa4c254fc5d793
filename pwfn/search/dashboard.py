"""A live view of a study in optuna-dashboard, over a copy of its folder that Optuna holds in memory.

The folder stays the record: nothing is written to it, and what a visitor changes in the view is lost when it closes.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from pwfn.errors import UserError
from pwfn.invocation import command_line
from pwfn.metrics import METRICS
from pwfn.naming import BASELINE
from pwfn.results.store import ResultsStore
from pwfn.search.suggestions import as_optuna
from pwfn.space.constraints import is_finite
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params

log = logging.getLogger(__name__)

SHOWN = (*METRICS, "rounds_done", "failure_class", "failure_message")
"""Columns of a trial's row that the view lists besides its parameters and objectives."""


class Mirror:
    """A copy of a study's folder as an Optuna study; each update copies what is new.

    Raises:
        UserError: the folder holds no study with a search space.
    """

    def __init__(self, store: ResultsStore) -> None:
        card = store.read_study()
        if card is None or "space" not in card:
            what = "there is no study" if card is None else "it holds trials run by hand"
            began = command_line("search")
            raise UserError(f"{store.results}/{store.study}: {what}; the dashboard shows what `{began}` began")
        self._store = store
        self._space = SearchSpace.from_resolved(card["space"])
        self.storage = optuna.storages.InMemoryStorage()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report each trial on stderr
        directions = list(self._space.objectives.values())
        self._study = optuna.create_study(storage=self.storage, study_name=store.study, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names(list(self._space.objectives))
        self._id = self.storage.get_study_id_from_name(store.study)
        self._known: set[str] = set()
        self._open: dict[str, int] = {}  # trials without a row, and their ids in Optuna
        rows = {row["trial_id"]: row for row in store.read_trials()}
        for proposal in sorted(_searched(store.read_proposals()), key=_order):
            self._add(proposal, rows.get(proposal["trial_id"]))

    def update(self) -> None:
        """Add the trials that were proposed since the last update, and end those that have a row now."""
        new = [self._store.read_proposal(each) for each in self._store.proposal_ids() if each not in self._known]
        for proposal in sorted(_searched(each for each in new if each is not None), key=_order):
            self._add(proposal, None)
        ended = set(self._store.trial_ids())
        for trial_id, optuna_id in list(self._open.items()):
            row = self._store.read_trial(trial_id) if trial_id in ended else None
            if row is None:
                self._note_rounds(trial_id, optuna_id)
                continue
            for name, value in self._attributes(row).items():
                self.storage.set_trial_user_attr(optuna_id, name, value)
            self.storage.set_trial_state_values(optuna_id, *self._outcome(row))
            del self._open[trial_id]

    def _add(self, proposal: Mapping[str, Any], row: Mapping[str, Any] | None) -> None:
        trial_id = proposal["trial_id"]
        params: Params = {}
        distributions: dict[str, BaseDistribution] = {}
        if self._space.variation.contains(proposal["params"]):  # else the space was another one when it was proposed
            params, distributions = as_optuna(self._space, proposal["params"])
        state, values = (TrialState.RUNNING, None) if row is None else self._outcome(row)
        trial = optuna.create_trial(
            state=state,
            values=values,
            params=params,
            distributions=distributions,
            user_attrs={"trial_id": trial_id, **({} if row is None else self._attributes(row))},
        )
        if row is not None:
            trial.datetime_start, trial.datetime_complete = _local(row["started_at"]), _local(row["finished_at"])
        optuna_id = self.storage.create_new_trial(self._id, template_trial=trial)
        self._known.add(trial_id)
        if row is None:
            self._open[trial_id] = optuna_id

    def _outcome(self, row: Mapping[str, Any]) -> tuple[TrialState, list[float] | None]:
        values = [row[name] for name in self._space.objectives]
        if row["state"] == "complete" and all(map(is_finite, values)):
            return TrialState.COMPLETE, values
        return (TrialState.PRUNED if row["state"] == "pruned" else TrialState.FAIL), None

    def _attributes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        violations = {f"violation of {each.name}": each.violation(row) for each in self._space.constraints}
        return {name: row[name] for name in SHOWN if row[name] is not None} | violations

    def _note_rounds(self, trial_id: str, optuna_id: int) -> None:
        rounds = self._store.read_rounds(trial_id)
        if rounds:
            done = f"{len(rounds)} of {rounds[-1]['num_rounds']}"
            self.storage.set_trial_user_attr(optuna_id, "rounds", done)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials in their present state, as Optuna holds them."""
        return self._study.get_trials(deepcopy=False)


class Dashboard:
    """optuna-dashboard, reachable from this machine only, over a mirror that is updated while it runs.

    Args:
        mirror: the study to show.
        port: the port to listen on; 0 takes a free one.
        seconds: time between two updates of the mirror.

    Raises:
        UserError: optuna-dashboard is not installed, or the port is taken.
    """

    def __init__(self, mirror: Mirror, *, port: int, seconds: float) -> None:
        try:
            from optuna_dashboard import wsgi
        except ModuleNotFoundError as error:
            raise UserError("the dashboard is an extra: python -m pip install 'pwfn[dashboard]'") from error
        self._mirror = mirror
        self._seconds = seconds
        self._is_over = threading.Event()
        try:
            self._server = make_server("127.0.0.1", port, wsgi(mirror.storage), _Server, _QuietHandler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; 0 takes a free one") from error

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        return f"http://127.0.0.1:{self._server.server_port}/dashboard"

    def serve(self) -> None:
        """Serve until interrupted."""
        updates = threading.Thread(target=self._keep_up, daemon=True)
        updates.start()
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._is_over.set()
            self._server.server_close()

    def _keep_up(self) -> None:
        while not self._is_over.wait(self._seconds):
            try:
                self._mirror.update()
            except UserError as error:
                log.warning("%s; the view stays as it is until that passes", error)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it so
        """Print nothing: a browser asks every few seconds."""


def _local(moment: dt.datetime | None) -> dt.datetime | None:
    """Convert a recorded time (UTC) to the form that Optuna uses: local time without a time zone."""
    return moment and moment.astimezone().replace(tzinfo=None)


def _searched(proposals: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Leave out the baselines: no sampler knows them."""
    return (each for each in proposals if BASELINE not in each)


def _order(proposal: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Sort proposals by their number, with replicates last, because they came after all others."""
    return "replicate" in proposal, proposal["number"], proposal["trial_id"]
