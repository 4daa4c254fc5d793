"""A trial's configuration as columns: one per scalar field, under its dotted name (`method.b`, `training.lr`)."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel

from pwfn.config import TrialConfig

_TYPES = {
    str: (pa.string(), "text"),
    bool: (pa.bool_(), "yes/no"),
    int: (pa.int64(), "integer"),
    float: (pa.float64(), "number"),
}


def describe(name: str, kind: Any, unit: str, description: str, *, key: bool = False) -> Any:
    """Make a pyarrow field with its unit and its meaning in the metadata; a key is never null."""
    return pa.field(name, kind, nullable=not key, metadata={"unit": unit, "description": description})


def config_fields(model: type[BaseModel] = TrialConfig) -> list[Any]:
    """Make one nullable pyarrow field for each scalar field of a configuration; a tuple becomes a list.

    The members of a union of configurations (the methods) share columns of the same name. A section that may be missing
    (the teacher) is one column of text: a path as it is, and fields as JSON. A mapping has no fixed names and so no
    columns; it is kept in `config_json`.

    Raises:
        TypeError: Two members of a union give one name two types, or a field has a type that no column holds.
    """
    fields: dict[str, Any] = {}
    for field in _leaves(model, ""):
        known = fields.setdefault(field.name, field)
        if known.type != field.type:
            raise TypeError(f"{field.name} is both {known.type} and {field.type}; a column has one type")
    return list(fields.values())


def config_columns(config: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration into the columns that `config_fields` describes."""
    columns: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel) and _may_be_missing(type(config).model_fields[name].annotation):
            columns[prefix + name] = value.model_dump_json(exclude_defaults=True)
        elif isinstance(value, BaseModel):
            columns |= config_columns(value, f"{prefix}{name}.")
        elif not isinstance(value, dict):
            columns[prefix + name] = list(value) if isinstance(value, tuple) else value
    return columns


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[Any]:
    for name, info in model.model_fields.items():
        members = _members(info.annotation)
        nested = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
        is_text = bool(nested) and _may_be_missing(info.annotation)
        for member in nested if not is_text else ():
            yield from _leaves(member, f"{prefix}{name}.")
        if is_text or (not nested and get_origin(members[0]) is not dict):
            kind, unit = _TYPES[str] if is_text else _column_type(prefix + name, members)
            meaning = info.description or "Which of the alternatives this section is."
            yield describe(prefix + name, kind, unit, " ".join(meaning.split()))


def _may_be_missing(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def _members(annotation: Any) -> list[Any]:
    """List the alternative types of an annotation, without None and without the metadata of Annotated."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part) if member is not type(None)]
    return [annotation]


def _column_type(name: str, members: list[Any]) -> tuple[Any, str]:
    if len(members) == 1 and get_origin(members[0]) is tuple:
        kind, unit = _column_type(name, _members(get_args(members[0])[0]))
        return pa.list_(kind), f"list of {unit}"
    scalars = {type(choice) for member in members for choice in _choices(member)}
    if len(scalars) == 1 and (scalar := scalars.pop()) in _TYPES:
        return _TYPES[scalar]
    raise TypeError(f"{name}: no column holds {members}; a field is text, a flag, a number or a tuple of one of them")


def _choices(member: Any) -> tuple[Any, ...]:
    """Return values of a member's type: the choices of a Literal, or one instance of a scalar type."""
    if get_origin(member) is Literal:
        return get_args(member)
    return (member(),) if member in _TYPES else (member,)
