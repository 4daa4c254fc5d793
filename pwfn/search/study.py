"""A study: a search space and the folder of its results, begun or continued.

A study is continued only with what began it: the same space, code, package versions, data and checkpoints. Trials that
differ in one of these cannot share a front. `force` mixes them all the same, and study.json then says so.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pwfn.config import KmeansConfig
from pwfn.errors import UserError
from pwfn.float_network import baseline_key
from pwfn.naming import BASELINE, PointName
from pwfn.results.store import ResultsStore
from pwfn.search.code_digests import code_digests
from pwfn.search.comparison import differing, differing_settings
from pwfn.space.space import SearchSpace
from pwfn.trial.rows import Trial, commit, versions

log = logging.getLogger(__name__)

MOST_SHOWN = 8
"""Most differences that one message lists; study.json has all of them."""


@dataclass(frozen=True)
class SearchStudy:
    """A search space and the store of its results; small enough to be sent to the process of every trial."""

    space: SearchSpace
    store: ResultsStore

    def proposals(self) -> list[dict[str, Any]]:
        """Read what the search has proposed so far, by number; neither replicates nor baselines.

        Raises:
            UserError: one of them is not what a search writes.
        """
        found = [each for each in self.store.read_proposals() if is_searched(each)]
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


def is_searched(proposal: Mapping[str, Any]) -> bool:
    """Whether the search itself proposed a trial, so that it has a number of its own."""
    return not {"replicate", BASELINE} & proposal.keys()


def is_baseline(trial: Mapping[str, Any]) -> bool:
    """Whether a trial, by its proposal or by a row of it, is a baseline beside the search: these have no number."""
    return trial["number"] is None


def check_study(
    space: SearchSpace,
    store: ResultsStore,
    inputs: Mapping[str, Mapping[str, str]] | None = None,
    *,
    force: bool = False,
    is_shared: bool = False,
) -> None:
    """Check that a study can be begun, or continued, in the folder; write nothing.

    Args:
        space: what is to be searched.
        store: the folder.
        inputs: fingerprints of data and checkpoints by float network, where they are known.
        force: whether differences are accepted.
        is_shared: whether another driver runs the study, which then cannot be begun anew.

    Raises:
        UserError: the folder holds trials run by hand, or a study that another space, other code or other data began,
            and `force` is false. Names what differs.
    """
    known = store.read_study() or {}
    if force or not known or (not is_shared and is_untouched(store)):
        return
    _require_search(known, store)
    _require_proposals(store)
    differences = _differences(known, space)
    if inputs is not None:
        differences += of_inputs(known, inputs, moved_inputs(known, space))
    settle(known, differences, store, force=False)


def is_untouched(store: ResultsStore) -> bool:
    """Whether no trial of a study has finished anything, and none by hand has begun."""
    if store.has_rows():
        return False
    return all("params" in proposal for proposal in store.read_proposals())


def open_study(
    space: SearchSpace, store: ResultsStore, *, command: str | None = None, force: bool = False
) -> SearchStudy:
    """Begin a study, or continue the one that is in the folder.

    A study in which no trial has finished a round is begun anew where it differs.

    Raises:
        UserError: the folder cannot be written; or it holds a study that another space or other code began, and
            `force` is false. Names what differs.
    """
    known = store.read_study() or {}
    differences = _differences(known, space)
    if differences and is_untouched(store):
        log.info("%s has no finished round: it is begun anew", _folder(store))
        store.clear_trials()
        known, differences = {}, []
    _require_search(known, store)
    _require_proposals(store)
    known = settle(known, differences, store, force=force)
    store.create()
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
            "command": known.get("command", "") if command is None else command,
        }
    )
    return SearchStudy(space, store)


def check_inputs(
    store: ResultsStore,
    inputs: Mapping[str, Mapping[str, str]],
    *,
    force: bool,
    moved: Mapping[str, str] | None = None,
) -> None:
    """Compare the data and checkpoints of each float network with those that the study began with, and record them.

    A float network whose data and checkpoint are the same, but lie elsewhere (`moved`, from `moved_inputs`), is kept.

    Raises:
        UserError: they differ and `force` is false; names what differs.
    """
    known = store.read_study() or {}
    known = settle(known, of_inputs(known, inputs, moved or {}), store, force=force)
    for key, before in (moved or {}).items():
        kept = store.read_baseline(before)
        is_same = inputs.get(key) is not None and known.get("inputs", {}).get(before) == inputs[key]
        if is_same and kept is not None and store.read_baseline(key) is None:
            store.write_baseline(key, *kept)
    store.write_study({**known, "inputs": {**known.get("inputs", {}), **inputs}})


def moved_inputs(known: Mapping[str, Any], space: SearchSpace) -> dict[str, str]:
    """Map the key of each float network whose data or checkpoint lie elsewhere now to the key that it had before."""
    if "space" not in known:
        return {}
    try:
        began = SearchSpace.from_resolved(known["space"]).float_networks()
    except UserError:  # it has fields that this program no longer knows, and is refused for that
        return {}
    keys = [list(map(baseline_key, configs)) for configs in (space.float_networks(), began)]
    return {now: before for now, before in zip(*keys, strict=False) if now != before}


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
    changed = differing(known.get("source"), now["source"])
    commits = f" (commit {known.get('commit')} -> {now['commit']})" if known.get("commit") != now["commit"] else ""
    if changed:
        changed[0] += commits
    return [*changed, *differing(known.get("versions"), now["versions"])]


def of_inputs(
    known: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]], moved: Mapping[str, str] | None = None
) -> list[str]:
    """List the differences in data and checkpoints, each of them once; `moved` maps a key to the one it had before."""
    before, moved = known.get("inputs", {}), moved or {}
    found = []
    for key, now in inputs.items():
        recorded = before.get(key, before.get(moved.get(key)))
        if recorded is None and key in moved:
            found.append("data or checkpoint lie elsewhere, and what they were was not recorded")
        found += differing(recorded, now)
    return list(dict.fromkeys(found))


def show(differences: list[str]) -> str:
    """Join differences into the text of a message, at most `MOST_SHOWN` of them."""
    more = len(differences) - MOST_SHOWN
    return "; ".join([*differences[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _differences(known: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """List how a study differs from the space and the program that would go on with it; none where there is none."""
    if not known:
        return []
    return [*(differing_settings(known["space"], space) if "space" in known else ["run by hand"]), *of_code(known)]


def _require_search(known: Mapping[str, Any], store: ResultsStore) -> None:
    if known and "space" not in known:
        raise UserError(f"{_folder(store)} holds trials run by hand; give this study another name with --study")


def _require_proposals(store: ResultsStore) -> None:
    """Refuse rows of trials that nothing here has proposed: the search would give their numbers to other trials."""
    ended = {PointName.read(each).run for each in store.ended_ids()}
    unknown = ended - set(store.proposal_ids())  # listed last: other drivers may run, and a proposal precedes its row
    if unknown:
        raise UserError(
            f"{_folder(store)} holds results of {len(unknown)} trials without their proposals (first {min(unknown)}), "
            "as a published copy does, so a search cannot go on there; go on in the folder it was published from, or "
            "give this study another name with --study"
        )


def _folder(store: ResultsStore) -> str:
    return f"{store.results}/{store.study}"
