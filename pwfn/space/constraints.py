"""Constraints: bounds that a trial must keep for its result to count, and by how much a trial misses them.

In a file: `constraints: {val_top1: {max_drop: 0.01}, unique_values: {max: 64}}`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple, get_args

from pwfn.errors import UserError, nearest_names
from pwfn.metrics import METRICS, Bound, share_missed
from pwfn.space.declaration import Origin, require_metric, with_overrides
from pwfn.space.fields import show

FLOAT_METRICS = {name: f"float_{name}" for name, metric in METRICS.items() if metric.has_float and metric.is_searchable}
"""Metrics that are recorded of the float network too, and the column that holds it."""


class Constraint(NamedTuple):
    """One bound on one metric of a trial."""

    metric: str
    kind: Bound
    """At least, at most, or at most so far below the float network."""
    bound: float

    @property
    def name(self) -> str:
        """A name that differs from those of all other constraints of a study."""
        return f"{self.metric}.{self.kind}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a trial's row that decide whether it is kept."""
        return (self.metric, FLOAT_METRICS[self.metric]) if self.kind == "max_drop" else (self.metric,)

    def violation(self, metrics: Mapping[str, Any]) -> float:
        """Say by what share of the bound it is missed: at most 0 if it is kept, infinite if a metric is missing."""
        if not all(is_finite(metrics.get(column)) for column in self.columns):
            return math.inf
        return share_missed(self.kind, self.bound, *(float(metrics[column]) for column in self.columns))

    def __str__(self) -> str:
        words = {"min": "at least", "max": "at most", "max_drop": "below the float network's by at most"}
        return f"{words[self.kind]} {self.bound:g}"


def is_finite(value: Any) -> bool:
    """Whether a recorded value is a finite number; None, text and NaN are not."""
    return isinstance(value, Real) and math.isfinite(value)


def total_violation(constraints: Iterable[Constraint], metrics: Mapping[str, Any]) -> float:
    """Add up by how much constraints are missed: 0 if all are kept, infinite if a metric is missing."""
    return sum((max(0.0, constraint.violation(metrics)) for constraint in constraints), 0.0)


def read_constraints(declared: Mapping[str, Any], origin: Origin) -> tuple[Constraint, ...]:
    """Read a mapping from metrics to their bounds.

    Raises:
        UserError: naming the metric, what was found and what is allowed.
    """
    bounds_of = with_overrides(declared, "constraints", origin)
    found = (_of_metric(metric, bounds, origin) for metric, bounds in bounds_of.items() if bounds is not None)
    return tuple(constraint for constraints in found for constraint in constraints)


def declared_constraints(constraints: Iterable[Constraint]) -> dict[str, dict[str, float]]:
    """Write constraints in the form that they have in a YAML file."""
    declared: dict[str, dict[str, float]] = {}
    for constraint in constraints:
        declared.setdefault(constraint.metric, {})[constraint.kind] = constraint.bound
    return declared


def _of_metric(metric: str, bounds: Any, origin: Origin) -> list[Constraint]:
    where = origin.at("constraints", metric)
    inner = [name for name in origin.overrides if name.startswith(f"constraints.{metric}.")]
    if inner and f"constraints.{metric}" not in origin.overrides:
        where = f"--set constraints.{metric}"
    require_metric(metric, where)
    if not isinstance(bounds, dict) or not bounds:
        raise UserError(f"{where} is {show(bounds)}, but must be bounds such as {{min: 0.9}}")
    for kind, bound in bounds.items():
        _check_bound(metric, kind, bound, where)
    if {"min", "max"} <= bounds.keys() and bounds["min"] > bounds["max"]:
        raise UserError(f"{where}: min <= max must hold, but got {show(bounds)}")
    return [Constraint(metric, kind, float(bound)) for kind, bound in bounds.items()]


def _check_bound(metric: str, kind: str, bound: Any, where: str) -> None:
    if kind not in get_args(Bound):
        kinds = get_args(Bound)
        raise UserError(f"{where}.{kind} is not a bound ({', '.join(kinds)}){nearest_names(kind, kinds)}")
    if isinstance(bound, bool) or not is_finite(bound):
        raise UserError(f"{where}.{kind} is {show(bound)}, but must be a number")
    if kind == "max_drop" and metric not in FLOAT_METRICS:
        recorded = ", ".join(FLOAT_METRICS)
        raise UserError(f"{where}.max_drop: of the float network only {recorded} is recorded; use min or max")
    if kind == "max_drop" and not 0 <= bound < 1:
        raise UserError(f"{where}.max_drop is {show(bound)}, but must be in [0, 1): 0.01 is one point")
    if METRICS[metric].unit == "fraction" and kind != "max_drop" and not 0 <= bound <= 1:
        raise UserError(f"{where}.{kind} is {show(bound)}, but {metric} is a fraction in [0, 1]: 0.9 is 90 %")
