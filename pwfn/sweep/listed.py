"""Trials that are known beforehand and told to no sampler: replicates, and the baselines beside a search."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ray.tune.search import Searcher

from pwfn.search.study import SearchStudy
from pwfn.sweep.ownership import Ownership


class Listed(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Gives Tune the trials of a list that have not ended.

    All are written to the study's folder before the first starts, and what is written there runs.

    Args:
        study: whose trials they are; nobody is told how they end.
        proposals: `{"trial_id": ..., "number": ..., "params": ...}` of each.
        known: names of those that are written already.
        ended: names of the trials that have a row.
        ownership: decides which of several drivers runs a trial; None where there is only one.
    """

    def __init__(
        self,
        study: SearchStudy,
        proposals: Iterable[dict[str, Any]],
        known: Collection[str],
        ended: Collection[str],
        ownership: Ownership | None = None,
    ) -> None:
        super().__init__()
        self._ownership = ownership
        driver = {} if ownership is None else {"driver": ownership.number}
        self._pending = []
        for proposal in proposals:
            is_new = proposal["trial_id"] not in known
            if is_new and not study.store.create_proposal(proposal["trial_id"], {**proposal, **driver}):
                continue  # another driver has just written it, and runs it
            if proposal["trial_id"] not in ended:
                self._pending.append({**driver, **proposal} if is_new else proposal)
        self.num_left = len(self._pending)
        """Trials that had not ended when this began."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next trial, or FINISHED."""
        while self._pending:
            proposal = self._pending.pop(0)
            if self._ownership is None or self._ownership.take(proposal["trial_id"], proposal.get("driver")):
                return proposal
        return str(Searcher.FINISHED)

    def stop(self) -> None:
        """Propose nothing from now on."""
        self._pending.clear()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing: what is proposed next does not depend on it."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing into Tune's snapshots: the study's folder has all."""
