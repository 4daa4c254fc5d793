"""A study: a search space and the place of its results, begun or continued."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.rows import Trial, commit, versions
from pwfn.search.space import SearchSpace

CHANGEABLE = ("search.trials", "search.max_concurrent")
"""What may differ when a study is continued: it changes no trial."""


@dataclass(frozen=True)
class Study:
    """A search space and the place of its results; small enough to send to every trial's process."""

    space: SearchSpace
    store: ResultsStore

    def trial(self, proposal: Mapping[str, Any]) -> Trial:
        """Make the trial of a proposal: `trial_id`, `number` and `params`."""
        number: int = proposal["number"]
        config = self.space.trial_config(proposal["params"], number)
        return Trial(proposal["trial_id"], number, self.store.study, config)


def open_study(space: SearchSpace, store: ResultsStore, *, command: str) -> Study:
    """Begin a study, or continue the one that is in the folder with the same space.

    Raises:
        UserError: the folder cannot be written, or holds a study of another space; names what differs.
    """
    known = store.read_study()
    if known is None:
        store.create()
    else:
        _check_same(known, space, store)
    store.write_study(
        {
            "study": store.study,
            "seed": space.search.seed,
            "objectives": space.objectives,
            "num_trials": space.search.trials,
            "space": space.resolved(),
            "versions": versions(),
            "commit": commit(),
            "created_at": dt.datetime.now(dt.UTC).isoformat(),
            "command": command,
            **({"created_at": known["created_at"]} if known else {}),
        }
    )
    return Study(space, store)


def _check_same(known: Mapping[str, Any], space: SearchSpace, store: ResultsStore) -> None:
    before, now = (dict(_leaves(json.loads(json.dumps(each)))) for each in (known["space"], space.resolved()))
    changes = [
        f"{name}: {before.get(name, 'nothing')} -> {now.get(name, 'nothing')}"
        for name in sorted({*before, *now} - {*CHANGEABLE})
        if before.get(name) != now.get(name)
    ]
    if changes:
        raise UserError(
            f"{store.results}/{store.study} holds a study of another space ({'; '.join(changes)}); "
            "give this one another name with --study, or another folder with --results"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value
