"""What two declarations of a study have in common: its settings as they act, whichever way they were written down."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from pwfn.errors import UserError
from pwfn.naming import dotted
from pwfn.space.space import SearchSpace

CHANGEABLE = (
    "name", "search.trials", "search.max_concurrent", "search.hours", "search.gpu_hours", "search.trial_minutes",
    "search.checkpoint_minutes", "search.keep_models", "search.baselines", "fixed.data.loader_workers",
    "fixed.data.loader_timeout", "fixed.data.cache", "fixed.resources.cpus_per_worker", "fixed.resources.custom",
)  # fmt: skip
"""Settings that may differ when a study is continued, because they change the result of no trial."""
PLACES = {"fixed.data.root": "data.root", "fixed.model.checkpoint": "model.checkpoint"}
"""Settings that say where an input is. What is there is compared by its fingerprint; here only the last part of the
path counts, which names the data in rows and reports."""
NOTHING = "nothing"


def differing_settings(before: Mapping[str, Any], now: SearchSpace) -> list[str]:
    """List in words how a space differs from the one that a study began with, as study.json keeps it.

    A field that has its default counts the same whether it is written down or not.
    """
    try:
        began = SearchSpace.from_resolved(before)
    except UserError:  # it has fields that this program no longer knows
        return differing(_flat(before), _flat(now.resolved()), CHANGEABLE)
    names = {*began.variation.fixed, *now.variation.fixed}
    return differing(_settings(began, names), _settings(now, names), CHANGEABLE)


def differing(before: Mapping[str, Any] | None, now: Mapping[str, Any], apart_from: Iterable[str] = ()) -> list[str]:
    """List in words which entries differ; none where nothing was recorded before."""
    if before is None:
        return []
    return [
        f"{name}: {before.get(name, NOTHING)} -> {now.get(name, NOTHING)}"
        for name in sorted({*before, *now} - {*apart_from})
        if before.get(name, NOTHING) != now.get(name, NOTHING)
    ]


def _settings(space: SearchSpace, fixed: Iterable[str]) -> dict[str, Any]:
    settings = {name: value for name, value in _flat(space.resolved()).items() if not name.startswith("fixed.")}
    for name in fixed:
        if name not in space.variation.vary:
            settings[f"fixed.{name}"] = _acting(name, _value(space, name))
    return settings


def _value(space: SearchSpace, name: str) -> Any:
    """The value of a field that does not vary; `NOTHING` where its default depends on what varies."""
    variation = space.variation
    selector = variation.fields.selector(name)
    if name in variation.fixed or selector in (None, name) or selector not in variation.vary:
        return json.loads(json.dumps(variation.value(name, {})))
    tags = variation.vary[selector].domain.probes
    defaults = [variation.fields.default(name, tag) for tag in tags if variation.fields.members(name, [tag])]
    return defaults[0] if all(each == defaults[0] for each in defaults) else NOTHING


def _acting(name: str, value: Any) -> Any:
    """What of a value can change a result: of a share of a GPU that it is one, of a place its name."""
    if name == "resources.gpus_per_worker":
        return "a GPU" if value else "none"
    if f"fixed.{name}" in PLACES and value is not None:
        return PurePath(value.rstrip("/")).name
    return value


def _flat(resolved: Mapping[str, Any]) -> dict[str, Any]:
    return dict(dotted(json.loads(json.dumps(resolved))))
