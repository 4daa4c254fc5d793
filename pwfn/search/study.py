"""A study: a search space and the place of its results, begun or continued.

A study is continued only by what began it: the same space, code, package versions, data and checkpoints. Trials that
differ in one of them cannot share a front; `force` mixes them nevertheless, and study.json says that this was done.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pwfn.errors import UserError
from pwfn.naming import dotted
from pwfn.results.store import ResultsStore
from pwfn.search.sources import source_digests
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import Trial, commit, versions

log = logging.getLogger(__name__)

CHANGEABLE = (
    "search.trials", "search.max_concurrent", "search.hours", "search.gpu_hours", "search.trial_minutes",
    "search.keep_models",
)  # fmt: skip
"""What may differ when a study is continued: it changes no trial."""
MOST_SHOWN = 8
"""Differences that a message lists; study.json has them all."""


@dataclass(frozen=True)
class Study:
    """A search space and the place of its results; small enough to send to every trial's process."""

    space: SearchSpace
    store: ResultsStore

    def proposals(self) -> list[dict[str, Any]]:
        """Read what the search has proposed so far, by number; replicates are none of it."""
        found = (proposal for proposal in self.store.read_proposals() if "replicate" not in proposal)
        return sorted(found, key=lambda proposal: int(proposal["number"]))

    def trial(self, proposal: Mapping[str, Any]) -> Trial:
        """Make the trial of a proposal: `trial_id`, `number`, `params` and, of a replicate, which one it is."""
        number: int = proposal["number"]
        config = self.space.trial_config(proposal["params"], number, proposal.get("replicate", 0))
        return Trial(proposal["trial_id"], number, self.store.study, config)


def open_study(space: SearchSpace, store: ResultsStore, *, command: str, force: bool = False) -> Study:
    """Begin a study, or continue the one that is in the folder.

    Raises:
        UserError: the folder cannot be written, or holds a study of another space or code and this is not to be
            forced; names what differs.
    """
    known = store.read_study()
    if known is None:
        store.create()
        known = {}
    elif "space" not in known:
        raise UserError(f"{_folder(store)} holds trials run by hand; give this study another name with --study")
    else:
        known = settle(known, [*_of_space(known, space), *of_code(known)], store, force=force)
    now = dt.datetime.now(dt.UTC).isoformat()
    store.write_study(
        {
            **{name: value for name, value in known.items() if name != "schema_version"},
            "study": store.study,
            "seed": space.search.seed,
            "objectives": space.objectives,
            "num_trials": space.search.trials,
            "space": space.resolved(),
            **code_card(),
            "created_at": known.get("created_at", now),
            "command": command,
        }
    )
    return Study(space, store)


def check_inputs(store: ResultsStore, inputs: Mapping[str, Mapping[str, str]], *, force: bool) -> None:
    """Compare the data and checkpoints of each float network with those that the study began with, and record them.

    Raises:
        UserError: they differ, and this is not to be forced; names what differs.
    """
    known = store.read_study() or {}
    known = settle(known, of_inputs(known, inputs), store, force=force)
    store.write_study({**known, "inputs": {**known.get("inputs", {}), **inputs}})


def record_understood(store: ResultsStore, understood: Mapping[str, Any]) -> None:
    """Keep in study.json what was understood of data and networks, by the float network's key."""
    known = store.read_study() or {}
    store.write_study({**known, "understood": {**known.get("understood", {}), **understood}})


def settle(known: Mapping[str, Any], differences: list[str], store: ResultsStore, *, force: bool) -> dict[str, Any]:
    """Refuse to continue with differences; where that is forced, note them in study.json's content instead."""
    if not differences:
        return dict(known)
    shown = show(differences)
    if not force:
        raise UserError(
            f"{_folder(store)} was begun otherwise ({shown}); give this study another name with --study or another "
            "folder with --results, or mix the two with --force-resume"
        )
    log.warning("%s goes on, although it was begun otherwise (%s)", _folder(store), shown)
    note = {"at": dt.datetime.now(dt.UTC).isoformat(), "differences": differences}
    return {**known, "forced": [*known.get("forced", []), note]}


@functools.cache
def code_card() -> dict[str, Any]:
    """What study.json says of the running program."""
    return {"versions": versions(), "commit": commit(), "source": source_digests()}


def of_code(known: Mapping[str, Any]) -> list[str]:
    """List the modules and packages that differ from those on record; what is not on record is not compared."""
    now = code_card()
    changed = _differing(known.get("source"), now["source"])
    commits = f" (commit {known.get('commit')} -> {now['commit']})" if known.get("commit") != now["commit"] else ""
    if changed:
        changed[0] += commits
    return [*changed, *_differing(known.get("versions"), now["versions"])]


def of_inputs(known: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """List what differs of data and checkpoints, each once."""
    before = known.get("inputs", {})
    return list(dict.fromkeys(line for key, now in inputs.items() for line in _differing(before.get(key), now)))


def show(differences: list[str]) -> str:
    """Join differences for a message."""
    more = len(differences) - MOST_SHOWN
    return "; ".join([*differences[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _of_space(known: Mapping[str, Any], space: SearchSpace) -> list[str]:
    before, now = (dict(dotted(json.loads(json.dumps(each)))) for each in (known["space"], space.resolved()))
    return [line for line in _differing(before, now) if line.partition(":")[0] not in CHANGEABLE]


def _differing(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    if before is None:
        return []
    return [
        f"{name}: {before.get(name, 'nothing')} -> {now.get(name, 'nothing')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _folder(store: ResultsStore) -> str:
    return f"{store.results}/{store.study}"
