"""Warm start: the search learns from complete trials of other studies before its first proposal.

These trials are copied into the folder of the new study, so that it can be continued without the other folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pwfn.errors import UserError
from pwfn.naming import dotted, is_trial, parent_of
from pwfn.results.store import ResultsStore
from pwfn.search.learning import lesson
from pwfn.space.constraints import is_finite
from pwfn.space.fields import show
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params

if TYPE_CHECKING:
    from pwfn.search.study import SearchStudy  # it imports torch, which a dry run need not wait for

NOT_COMPARED = ("seed", "data.split_seed")
"""Fields that differ between any two studies, so a difference in them is not reported."""
MOST_SHOWN = 8
"""Most differences that one line lists."""


class Loan(NamedTuple):
    """What a space can learn from other studies."""

    trials: list[dict[str, Any]]
    """Parameters and metrics of each trial, with its study and its trial_id, as JSON data."""
    lines: list[str]
    """Sentences that say what was taken from each folder and what was not."""


def warm_start(study: SearchStudy, folders: Sequence[str]) -> list[str]:
    """Copy the trials of other studies into a study that has proposed nothing yet; say in lines what was taken.

    A folder whose trials the study has already copied is not read again.

    Args:
        study: the study that learns.
        folders: RESULTS/STUDY of each of the other studies, a local path or a URI.

    Raises:
        UserError: one of the folders holds no study, or this study has already proposed trials without them.
    """
    new = require_fresh(study, folders)
    if not new:
        return []
    known = _known(study.store)
    loan = borrow(study.space, new, known["trials"])
    taken = [*known["folders"], *(_name(_store(folder)) for folder in new)]
    study.store.write_warm_start({"folders": taken, "trials": [*known["trials"], *loan.trials]})
    return loan.lines


def require_fresh(study: SearchStudy, folders: Sequence[str]) -> list[str]:
    """Return the folders that a study has not copied yet; raise UserError if it has already proposed trials."""
    new = [folder for folder in dict.fromkeys(folders) if _name(_store(folder)) not in _known(study.store)["folders"]]
    num_proposed = len(study.proposals()) if new else 0
    if num_proposed:
        raise UserError(
            f"--warm-start {new[0]}: study {study.store.study} has proposed {num_proposed} trials without it; "
            "begin another one with --study"
        )
    return new


def require_studies(folders: Sequence[str]) -> None:
    """Raise UserError unless each folder, or URI, holds a study."""
    for folder in folders:
        store = _store(folder)
        if store.read_study() is None and not store.read_trials():
            raise UserError(f"--warm-start {folder}: there is no study")


def borrow(space: SearchSpace, folders: Sequence[str], known: Sequence[Mapping[str, Any]] = ()) -> Loan:
    """Collect the complete trials of other studies that lie in a space; equal parameters are taken once.

    Raises:
        UserError: one of the folders holds no study.
    """
    require_studies(folders)
    seen = {_key(trial["params"]) for trial in known}
    loan = Loan([], [])
    for folder in folders:
        store = _store(folder)
        _borrow(space, store, store.read_trials(), seen, loan)
    return loan


def _borrow(space: SearchSpace, store: ResultsStore, rows: list[dict[str, Any]], seen: set[str], loan: Loan) -> None:
    differences: dict[str, str] = {}
    num_left_out = {"lie outside the space": 0, "did not finish": 0, "are known already": 0}
    num_known = len(loan.trials)
    trials = [row for row in rows if is_trial(row["trial_id"])]
    for row in (lesson(space, store, each) for each in trials):
        fields = dict(dotted(json.loads(row["config_json"] or "{}"), depth=2))
        params = space.variation.params_of(fields)
        if row["state"] != "complete" or not all(is_finite(row[name]) for name in space.learned_metrics):
            num_left_out["did not finish"] += 1
        elif params is None:
            num_left_out["lie outside the space"] += 1
        elif _key(params) in seen:
            num_left_out["are known already"] += 1
        else:
            seen.add(_key(params))
            metrics = {name: row[name] for name in space.learned_metrics}
            trial = {"folder": _name(store), "trial_id": row["trial_id"], "params": params, "metrics": metrics}
            loan.trials.append(trial)
            differences |= dict(_differing(space, params, fields))
    parts = [f"told {len(loan.trials) - num_known} of {len(trials)} trials of {store.study}"]
    parts += [f"{number} {why}" for why, number in num_left_out.items() if number]
    loan.lines.append("; ".join(parts))
    if differences:
        shown = [*differences.values()][:MOST_SHOWN]
        more = f", and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
        loan.lines.append(f"trials of {store.study} were run with other settings: {', '.join(shown)}{more}")


def _differing(space: SearchSpace, params: Params, fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each field of a trial that this space would set to another value, with a text that says both values."""
    here = dict(dotted(space.trial_config(params, 0).model_dump(mode="json"), depth=2))
    for name, value in fields.items():
        if name in here and name not in NOT_COMPARED and not name.startswith("resources.") and here[name] != value:
            yield name, f"{name} {show(value)} instead of {show(here[name])}"


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _known(store: ResultsStore) -> dict[str, Any]:
    return store.read_warm_start() or {"folders": [], "trials": []}


def _store(folder: str) -> ResultsStore:
    return ResultsStore(*parent_of(folder))


def _name(store: ResultsStore) -> str:
    return f"{store.results}/{store.study}"
