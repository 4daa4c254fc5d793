"""The domains over which a field may vary, and the conditions under which it varies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from pwfn.errors import UserError, nearest_names
from pwfn.space.fields import show

IntervalKind = Literal["float", "log_float", "int", "log_int"]
KINDS = ("float", "log_float", "int", "log_int", "choice")


@dataclass(frozen=True)
class Interval:
    """All numbers, or whole numbers, from `low` to `high` inclusive; `log_` kinds are uniform in the logarithm."""

    kind: IntervalKind
    low: float
    high: float

    @property
    def is_int(self) -> bool:
        """Whether only whole numbers belong to it."""
        return self.kind.endswith("int")

    @property
    def is_log(self) -> bool:
        """Whether values are drawn uniformly in the logarithm."""
        return self.kind.startswith("log")

    @property
    def probes(self) -> tuple[float, ...]:
        """The values that are checked against the bounds of the field itself."""
        return (self.low, self.high)

    @property
    def declaration(self) -> dict[str, Any]:
        """The form in a YAML file."""
        return {self.kind: [self.low, self.high]}

    def contains(self, value: Any) -> bool:
        """Whether a value lies in the interval; true and false do not count as numbers."""
        return _is_number(value, whole=self.is_int) and self.low <= value <= self.high

    def normal(self, value: Any) -> Any:
        """Give a value the type of the interval: 3.0 becomes 3 in an interval of whole numbers."""
        return int(value) if self.is_int and isinstance(value, float) and value.is_integer() else value

    def __str__(self) -> str:
        return f"{self.kind} {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of several `options`, each of which is any JSON data."""

    options: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values that are checked against the rules of the field itself: all options."""
        return self.options

    @property
    def declaration(self) -> dict[str, Any]:
        """The form in a YAML file."""
        return {"choice": list(self.options)}

    def contains(self, value: Any) -> bool:
        """Whether a value is one of the options; true and 1 are different."""
        return is_among(value, self.options)

    def normal(self, value: Any) -> Any:
        """Return the option that equals a value, such as [0.5, 1] for [0.5, 1.0]; the value itself if none does."""
        return next((option for option in self.options if is_among(value, (option,))), value)

    def __str__(self) -> str:
        return "one of " + ", ".join(show(option) for option in self.options)


Domain = Interval | Choice


@dataclass(frozen=True)
class Varied:
    """A domain, and its conditions: it applies if every field in `when` has one of the values listed for it."""

    domain: Domain
    when: dict[str, tuple[Any, ...]]

    @property
    def declaration(self) -> dict[str, Any]:
        """The form in a YAML file."""
        conditions = {field: list(accepted) for field, accepted in self.when.items()}
        return self.domain.declaration | ({"when": conditions} if conditions else {})

    def __str__(self) -> str:
        conditions = (f"{field} is {' or '.join(map(show, accepted))}" for field, accepted in self.when.items())
        return f"{self.domain}{' when ' if self.when else ''}{' and '.join(conditions)}"


def is_among(value: Any, accepted: tuple[Any, ...]) -> bool:
    """Whether a value equals one of the accepted ones; true and 1 are different."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in accepted)


def read_varied(declared: Any, where: str) -> Varied:
    """Read `{KIND: [...], when: {...}}`.

    Raises:
        UserError: naming `where`, what is wrong with the kind, the bounds, the options or the conditions.
    """
    if not isinstance(declared, dict):
        raise UserError(f"{where} is {show(declared)}, but must be a domain such as {{int: [3, 8]}}")
    unknown = [key for key in declared if key not in (*KINDS, "when")]
    if unknown:
        hint = nearest_names(unknown[0], KINDS)
        raise UserError(f"{where} has {unknown[0]!r}, but a domain is one of {', '.join(KINDS)}{hint}")
    kinds = [key for key in declared if key != "when"]
    if len(kinds) != 1:
        raise UserError(f"{where} must have exactly one of {', '.join(KINDS)}, but has {' and '.join(kinds) or 'none'}")
    kind, values = kinds[0], declared[kinds[0]]
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}.{kind} is {show(values)}, but must be a list with something in it")
    domain = _choice(values, where) if kind == "choice" else _interval(cast(IntervalKind, kind), values, where)
    return Varied(domain, dict(_conditions(declared.get("when", {}), where)))


def _interval(kind: IntervalKind, values: list[Any], where: str) -> Interval:
    whole = kind.endswith("int")
    if len(values) != 2 or not all(_is_number(value, whole=whole) for value in values):
        numbers = "whole numbers" if whole else "numbers"
        raise UserError(f"{where}.{kind} is {show(values)}, but must be two {numbers} [low, high]")
    low, high = values if whole else map(float, values)
    if low >= high:
        raise UserError(f"{where}.{kind}: low < high must hold, but got {show(values)}; one value belongs under fixed")
    if kind.startswith("log") and low <= 0:
        raise UserError(f"{where}.{kind}: low > 0 must hold for a logarithm, but got {show(values)}")
    return Interval(kind, low, high)


def _choice(options: list[Any], where: str) -> Choice:
    for index, option in enumerate(options):
        if is_among(option, tuple(options[:index])):
            raise UserError(f"{where}.choice has {show(option)} twice")
    return Choice(tuple(options))


def _conditions(declared: Any, where: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if not isinstance(declared, dict):
        raise UserError(f"{where}.when is {show(declared)}, but must be a mapping such as {{method.name: pwfn}}")
    for field, accepted in declared.items():
        values = accepted if isinstance(accepted, list) else [accepted]
        if not values:
            raise UserError(f"{where}.when.{field} is an empty list, so it would never vary")
        yield field, tuple(values)


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) if whole else isinstance(value, int | float) and math.isfinite(value)
