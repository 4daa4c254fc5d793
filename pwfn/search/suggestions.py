"""Translates the fields of a search space into Optuna's parameters, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial, FixedTrial

from pwfn.space.domains import Choice
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params


def suggest(space: SearchSpace, trial: BaseTrial) -> Params:
    """Ask an Optuna trial for the value of each field that varies in it."""
    return space.variation.walk(lambda name, _: _suggest_field(space, trial, name))


def labels(space: SearchSpace, params: Mapping[str, Any]) -> Params:
    """Write options that are lists or mappings as text, because Optuna takes only scalars as options."""
    return {name: _label(space, name, value) for name, value in params.items()}


def as_optuna(space: SearchSpace, params: Mapping[str, Any]) -> tuple[Params, dict[str, BaseDistribution]]:
    """Translate known parameters, which must lie in the space, into the values and distributions of an Optuna trial."""
    known = FixedTrial(labels(space, params))
    suggest(space, known)
    return known.params, known.distributions


def _suggest_field(space: SearchSpace, trial: BaseTrial, name: str) -> Any:
    domain = space.variation.vary[name].domain
    if isinstance(domain, Choice):
        options = [_label(space, name, option) for option in domain.options]
        return domain.options[options.index(trial.suggest_categorical(name, options))]
    if domain.is_int:
        return trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.is_log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.is_log)


def _label(space: SearchSpace, name: str, value: Any) -> Any:
    is_choice = isinstance(space.variation.vary[name].domain, Choice)
    return json.dumps(value) if is_choice and isinstance(value, list | dict) else value
