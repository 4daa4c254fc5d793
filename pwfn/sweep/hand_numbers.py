"""Which number a trial by hand has: the next one that is free, or that of an equal trial whose process is gone."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
from contextlib import suppress
from typing import Any

from pwfn.config import TrialConfig
from pwfn.naming import PointName
from pwfn.results.store import ResultsStore
from pwfn.search.study import code_card
from pwfn.sweep.ownership import LEASE_SECONDS, count_claims
from pwfn.sweep.process import Process
from pwfn.trial.attempts import read_attempts


def take_up(config: TrialConfig, store: ResultsStore) -> int:
    """Return the number under which a configuration runs; no other process that runs has it."""
    mine = {"config": config.model_dump(mode="json"), "code": _code_digest()}
    author = {"process": Process.here()._asdict(), "token": secrets.token_hex(8)}
    known = store.proposal_ids()
    for trial_id in known:
        proposal = store.read_proposal(trial_id) or {}
        if all(proposal.get(name) == value for name, value in mine.items()) and _take(
            trial_id, proposal, store, author
        ):
            return int(proposal["number"])
    # A published copy has rows without proposals; their numbers are taken, too.
    taken = {*known, *(PointName.read(each).of_trial for each in store.ended_ids())}
    number = 1 + max((int(each) for each in taken if each.isdecimal()), default=-1)
    while not store.create_proposal(f"{number:04d}", {"trial_id": f"{number:04d}", "number": number, **mine, **author}):
        number += 1
    return number


def _take(trial_id: str, proposal: dict[str, Any], store: ResultsStore, author: dict[str, Any]) -> bool:
    """Take a trial that has no row and whose process is gone."""
    if store.read_trial(trial_id) is not None:
        return False
    num_claims = count_claims(store, trial_id)
    last = (store.read_record(f"claims/{trial_id}.{num_claims - 1}") or {}) if num_claims else proposal
    return not _runs(trial_id, last, store) and store.create_record(f"claims/{trial_id}.{num_claims}", author)


def _runs(trial_id: str, author: dict[str, Any], store: ResultsStore) -> bool:
    """Whether a trial still runs: known on this machine; elsewhere, whether it has given a sign of life lately."""
    with suppress(KeyError, TypeError, ValueError):
        process = Process.read(author["process"])
        if process.is_here:
            return process.runs
    attempts = read_attempts(store, trial_id)
    return bool(attempts) and (dt.datetime.now(dt.UTC) - attempts[-1].seen_at).total_seconds() < LEASE_SECONDS


def _code_digest() -> str:
    """One digest of all that a trial's numbers depend on beside its configuration, but for data and checkpoint."""
    card = {name: value for name, value in code_card().items() if name != "commit"}
    return hashlib.sha256(json.dumps(card, sort_keys=True, default=dict).encode()).hexdigest()[:16]
