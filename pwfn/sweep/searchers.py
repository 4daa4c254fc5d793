"""The bridge between Optuna, which proposes trials, and Ray Tune, which places them.

Ray's own OptunaSearch reports trials that were stopped early as complete, leaves trials with a NaN running for ever,
and cannot start from known trials if there are several objectives. Here every trial ends in its true state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ray.tune.search import Searcher

from pwfn.naming import counted
from pwfn.search.learning import lesson
from pwfn.search.proposer import Proposal, Proposer
from pwfn.search.study import SearchStudy, is_searched
from pwfn.sweep.listed import Listed
from pwfn.sweep.ownership import Ownership
from pwfn.trial.rows import Row

log = logging.getLogger(__name__)


class OptunaSearch(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Gives Tune the proposals of a `Proposer`, as plain `{"number": 7, "trial_id": "0007", "params": {...}}`.

    It goes on from the folder of the study. Trials of other studies (`warm_start`) and finished trials are told to the
    sampler, interrupted trials run first, and each new proposal is written to the folder before its trial starts.

    Args:
        study: the study to search.
        ended: rows of the trials that have ended; None reads them from the store.
        ownership: decides which of several drivers runs a trial; None where there is only one.
    """

    def __init__(
        self, study: SearchStudy, ended: Iterable[Row] | None = None, ownership: Ownership | None = None
    ) -> None:
        super().__init__()
        self._store = study.store
        self._ownership = ownership
        self._known: set[str] = set()
        self._of_others: dict[str, dict[str, Any]] = {}
        """Trials that other drivers run, as far as this one knows."""
        self.proposer = Proposer(study.space)
        self._interrupted: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        self._is_stopped = False
        self.num_left = 0
        """Number of trials that had not ended when this object was made."""
        borrowed = (self._store.read_warm_start() or {"trials": []})["trials"]
        self.proposer.add_complete((trial["params"], trial["metrics"]) for trial in borrowed)
        self._take_up(study.proposals(), self._store.read_trials() if ended is None else ended)

    def _take_up(self, proposals: list[dict[str, Any]], ended: Iterable[Row]) -> None:
        rows = {row["trial_id"]: row for row in ended}
        self.num_left = self.proposer.space.search.trials - sum(each["trial_id"] in rows for each in proposals)
        known = [each for each in proposals if self.proposer.reopen(_proposal_of(each))]
        for proposal in known:
            if (row := rows.get(proposal["trial_id"])) is not None:
                self.proposer.tell(proposal["number"], row["state"], lesson(self.proposer.space, self._store, row))
        self._interrupted = [proposal for proposal in known if proposal["trial_id"] not in rows]
        self._known = {proposal["trial_id"] for proposal in proposals}
        if len(known) < len(proposals):
            log.warning("left out, as they lie outside the space: %s", counted(len(proposals) - len(known), "trial"))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next proposal; FINISHED if there are no more, None if it must wait for trials that still run."""
        if self._is_stopped:
            return str(Searcher.FINISHED)
        if self._ownership is not None and self._ownership.has_company:
            self._learn_of_others()
        proposal = self._take_interrupted()
        if proposal is None and self.proposer.must_wait:
            return None
        proposal = proposal or self._propose()
        if proposal is None:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = proposal["number"]
        return {name: proposal[name] for name in ("number", "trial_id", "params")}

    def _take_interrupted(self) -> dict[str, Any] | None:
        while self._interrupted:
            proposal = self._interrupted.pop(0)
            if self._ownership is None or self._ownership.take(proposal["trial_id"], proposal.get("driver")):
                return proposal
            self._of_others[proposal["trial_id"]] = proposal
        return None

    def _propose(self) -> dict[str, Any] | None:
        """Propose the next trial under a number that nobody has; None if there are no more, or if it has to wait."""
        driver = {} if self._ownership is None else {"driver": self._ownership.number}
        while not self.proposer.must_wait and (new := self.proposer.ask()) is not None:
            trial_id = f"{new.number:04d}"
            proposal = {"trial_id": trial_id, **new._asdict(), **driver}
            if self._store.create_proposal(trial_id, proposal):
                self._known.add(trial_id)
                return proposal
            self.proposer.withdraw(new.number)
            self._learn_of_others()
        return None

    def _learn_of_others(self) -> None:
        """Take up what other drivers have proposed and finished since, and the trials of those that are gone."""
        new = [each for each in self._store.proposal_ids() if each not in self._known]
        self._known |= set(new)
        for proposal in filter(None, map(self._store.read_proposal, new)):
            if is_searched(proposal) and self.proposer.reopen(_proposal_of(proposal)):
                self._of_others[proposal["trial_id"]] = proposal
        for trial_id, proposal in list(self._of_others.items()):
            row = self._store.read_trial(trial_id)
            if row is not None:
                self.proposer.tell(proposal["number"], row["state"], lesson(self.proposer.space, self._store, row))
                del self._of_others[trial_id]
            elif self._ownership is not None and self._ownership.is_free(trial_id, proposal.get("driver")):
                self._interrupted.append(self._of_others.pop(trial_id))

    def stop(self) -> None:
        """Propose nothing more from now on."""
        self._is_stopped = True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the sampler how a trial ended, from its last result, which has `state` and the metrics.

        An error, or a result without a state, counts as a failure. A trial that was interrupted has not ended: it goes
        on in the next run, so nothing is told.
        """
        result = result or {}
        state: Any = "failed" if error else result.get("state", "failed")
        number = self._numbers.pop(trial_id, -1)
        if state != "interrupted":
            self.proposer.tell(number, state, result)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing into Tune's snapshots, because the folder of the study has all that a new search needs."""


class InTurn(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Gives Tune all that a first searcher has, then what a second one has.

    Args:
        first: has a list that does not depend on results.
        second: is asked when `first` has no more, while its trials may still run.
    """

    def __init__(self, first: Listed, second: OptunaSearch) -> None:
        super().__init__()
        self._first = first
        self._second = second
        self._of_first: set[str] = set()
        self.num_left = first.num_left + second.num_left
        """Number of trials that had not ended when this object was made."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial; FINISHED if there are no more, None if it must wait for trials that still run."""
        proposal = self._first.suggest(trial_id)
        if proposal == Searcher.FINISHED:
            return self._second.suggest(trial_id)
        self._of_first.add(trial_id)
        return proposal

    def stop(self) -> None:
        """Propose nothing more from now on."""
        self._first.stop()
        self._second.stop()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher that proposed a trial how it ended."""
        searcher = self._first if trial_id in self._of_first else self._second
        searcher.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing into Tune's snapshots, because the folder of the study has all that a new search needs."""


def _proposal_of(written: dict[str, Any]) -> Proposal:
    return Proposal(written["number"], written["params"], written.get("attributes", {}))
