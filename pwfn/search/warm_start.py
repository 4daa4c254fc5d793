"""Warm start: complete trials of other studies teach the search before its first proposal.

They are copied into the new study's folder, so that it can be continued without the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pwfn.errors import UserError
from pwfn.naming import dotted, parent_of
from pwfn.results.store import ResultsStore
from pwfn.space.constraints import is_finite
from pwfn.space.fields import show
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params

if TYPE_CHECKING:
    from pwfn.search.study import Study  # it imports torch, which a dry run need not wait for

NOT_COMPARED = ("seed", "data.split_seed")
"""Fields that differ between studies by design."""
MOST_SHOWN = 8
"""Differences that a line lists."""


class Loan(NamedTuple):
    """What a space can learn from other studies."""

    trials: list[dict[str, Any]]
    """Parameters and metrics, and whose they are, as JSON data."""
    lines: list[str]
    """What was taken from each folder and what was not, in words."""


def warm_start(study: Study, folders: Sequence[str]) -> list[str]:
    """Copy what other studies' trials teach into a study that has proposed nothing yet, and say what was taken.

    A folder that the study has taken up before is left as it was taken.

    Args:
        study: the one to teach.
        folders: RESULTS/STUDY of each of the others, local or a URI.

    Raises:
        UserError: there is no such study, or this one has proposed trials without them.
    """
    known = study.store.read_warm_start() or {"folders": [], "trials": []}
    new = [folder for folder in dict.fromkeys(folders) if _name(_store(folder)) not in known["folders"]]
    if not new:
        return []
    num_proposed = len(study.proposals())
    if num_proposed:
        raise UserError(
            f"--warm-start {new[0]}: study {study.store.study} has proposed {num_proposed} trials without it; "
            "begin another one with --study"
        )
    loan = borrow(study.space, new, known["trials"])
    taken = [*known["folders"], *(_name(_store(folder)) for folder in new)]
    study.store.write_warm_start({"folders": taken, "trials": [*known["trials"], *loan.trials]})
    return loan.lines


def require_studies(folders: Sequence[str]) -> None:
    """Raise UserError unless each folder, or URI, holds a study."""
    for folder in folders:
        store = _store(folder)
        if store.read_study() is None and not store.read_trials():
            raise UserError(f"--warm-start {folder}: there is no study")


def borrow(space: SearchSpace, folders: Sequence[str], known: Sequence[Mapping[str, Any]] = ()) -> Loan:
    """Collect the trials of other studies that are complete and lie in a space, each parameters once.

    Raises:
        UserError: there is no such study.
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
    for row in rows:
        fields = dict(dotted(json.loads(row["config_json"] or "{}"), depth=2))
        params = space.variation.params_of(fields)
        if row["state"] != "complete" or not all(is_finite(row[name]) for name in space.told_metrics):
            num_left_out["did not finish"] += 1
        elif params is None:
            num_left_out["lie outside the space"] += 1
        elif _key(params) in seen:
            num_left_out["are known already"] += 1
        else:
            seen.add(_key(params))
            metrics = {name: row[name] for name in space.told_metrics}
            trial = {"folder": _name(store), "trial_id": row["trial_id"], "params": params, "metrics": metrics}
            loan.trials.append(trial)
            differences |= dict(_differing(space, params, fields))
    parts = [f"told {len(loan.trials) - num_known} of {len(rows)} trials of {store.study}"]
    parts += [f"{number} {why}" for why, number in num_left_out.items() if number]
    loan.lines.append("; ".join(parts))
    if differences:
        shown = [*differences.values()][:MOST_SHOWN]
        more = f", and {len(differences) - MOST_SHOWN} more" if len(differences) > MOST_SHOWN else ""
        loan.lines.append(f"trials of {store.study} were run with other settings: {', '.join(shown)}{more}")


def _differing(space: SearchSpace, params: Params, fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of a trial that this space would set otherwise, and how, in words; an older program had fewer fields."""
    here = dict(dotted(space.trial_config(params, 0).model_dump(mode="json"), depth=2))
    for name, value in fields.items():
        if name in here and name not in NOT_COMPARED and not name.startswith("resources.") and here[name] != value:
            yield name, f"{name} {show(value)} instead of {show(here[name])}"


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _store(folder: str) -> ResultsStore:
    return ResultsStore(*parent_of(folder))


def _name(store: ResultsStore) -> str:
    return f"{store.results}/{store.study}"
