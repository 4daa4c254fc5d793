"""A study: a search space and the folder of its results, begun or continued.

A study is continued only with what began it: the same space, code, package versions, data and checkpoints. Trials that
differ in one of these cannot share a front. `force` mixes them all the same, and study.json then says so.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pwfn.config import KmeansConfig
from pwfn.errors import UserError
from pwfn.naming import BASELINE, dotted
from pwfn.results.store import ResultsStore
from pwfn.search.code_digests import code_digests
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import Trial, commit, versions

log = logging.getLogger(__name__)

CHANGEABLE = (
    "search.trials", "search.max_concurrent", "search.hours", "search.gpu_hours", "search.trial_minutes",
    "search.checkpoint_minutes", "search.keep_models", "search.baselines",
)  # fmt: skip
"""Settings that may differ when a study is continued, because they change the result of no trial."""
MOST_SHOWN = 8
"""Most differences that one message lists; study.json has all of them."""


@dataclass(frozen=True)
class SearchStudy:
    """A search space and the store of its results; small enough to be sent to the process of every trial."""

    space: SearchSpace
    store: ResultsStore

    def proposals(self) -> list[dict[str, Any]]:
        """Read what the search has proposed so far, by number; neither replicates nor baselines."""
        found = (each for each in self.store.read_proposals() if not {"replicate", BASELINE} & each.keys())
        return sorted(found, key=lambda proposal: int(proposal["number"]))

    def trial(self, proposal: Mapping[str, Any]) -> Trial:
        """Make the trial of a proposal: `trial_id`, `number`, `params` and, of a replicate, which one it is.

        A baseline has no number; its method stands in the place of the space's.
        """
        number: int | None = proposal["number"]
        config = self.space.trial_config(proposal["params"], number or 0, proposal.get("replicate", 0))
        if BASELINE in proposal:
            config = config.model_copy(update={"method": KmeansConfig(**proposal[BASELINE])})
        return Trial(proposal["trial_id"], number, self.store.study, config)


def open_study(space: SearchSpace, store: ResultsStore, *, command: str, force: bool = False) -> SearchStudy:
    """Begin a study, or continue the one that is in the folder.

    Raises:
        UserError: the folder cannot be written; or it holds a study that another space or other code began, and
            `force` is false. Names what differs.
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
    return SearchStudy(space, store)


def check_inputs(store: ResultsStore, inputs: Mapping[str, Mapping[str, str]], *, force: bool) -> None:
    """Compare the data and checkpoints of each float network with those that the study began with, and record them.

    Raises:
        UserError: they differ and `force` is false; names what differs.
    """
    known = store.read_study() or {}
    known = settle(known, of_inputs(known, inputs), store, force=force)
    store.write_study({**known, "inputs": {**known.get("inputs", {}), **inputs}})


def record_understood(store: ResultsStore, understood: Mapping[str, Any]) -> None:
    """Keep in study.json what was understood of data and networks, by the float network's key."""
    known = store.read_study() or {}
    store.write_study({**known, "understood": {**known.get("understood", {}), **understood}})


def settle(known: Mapping[str, Any], differences: list[str], store: ResultsStore, *, force: bool) -> dict[str, Any]:
    """Refuse to continue a study if there are differences; with `force`, add them to the content of study.json."""
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
    """Describe the running program as study.json records it: versions, commit, digests of the code."""
    return {"versions": versions(), "commit": commit(), "source": code_digests()}


def of_code(known: Mapping[str, Any]) -> list[str]:
    """List the modules and packages that differ from the recorded ones; what was not recorded is not compared."""
    now = code_card()
    changed = _differing(known.get("source"), now["source"])
    commits = f" (commit {known.get('commit')} -> {now['commit']})" if known.get("commit") != now["commit"] else ""
    if changed:
        changed[0] += commits
    return [*changed, *_differing(known.get("versions"), now["versions"])]


def of_inputs(known: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """List the differences in data and checkpoints, each of them once."""
    before = known.get("inputs", {})
    return list(dict.fromkeys(line for key, now in inputs.items() for line in _differing(before.get(key), now)))


def show(differences: list[str]) -> str:
    """Join differences into the text of a message, at most `MOST_SHOWN` of them."""
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
