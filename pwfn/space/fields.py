"""The dotted names of a configuration's fields, and suggestions for a wrong name.

A section of the configuration is one model, or a union of models of which the field `name` selects one, as for the
methods. In such a union a field exists only if the selected model has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from pwfn.errors import UserError, nearest_names

QUOTED = r"'([^']+)'"
Members = tuple[type[BaseModel], ...]


class Fields:
    """The fields of a configuration: `sections` maps a section to its models, `owners` each field to its models."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.sections: dict[str, Members] = {}
        self.owners: dict[str, Members] = {}
        for name, info in model.model_fields.items():
            members = _models(info.annotation)
            if not members:
                self.owners[name] = (model,)
                continue
            self.sections[name] = members
            for member in members:
                for leaf in member.model_fields:
                    self.owners[f"{name}.{leaf}"] = (*self.owners.get(f"{name}.{leaf}", ()), member)

    def selector(self, field: str) -> str | None:
        """Name the field (`method.name`) that selects a model of `field`'s section; None if there is only one model."""
        section = field.partition(".")[0]
        return f"{section}.name" if len(self.sections.get(section, ())) > 1 else None

    def members(self, field: str, tags: Sequence[Any]) -> Members:
        """Models of the field's section that the `tags` select; all of them if the section has no selector."""
        section = self.sections.get(field.partition(".")[0], (self.model,))
        if self.selector(field) is None:
            return section
        names = [get_args(member.model_fields["name"].annotation) for member in section]
        return tuple(member for member, own in zip(section, names, strict=True) if any(tag in own for tag in tags))

    def default(self, field: str, tag: Any = None) -> Any:
        """Default of a field as JSON data, in the model that `tag` selects; None if that model has no such field."""
        if field == self.selector(field):
            return self.model.model_fields[field.partition(".")[0]].get_default(call_default_factory=True).name
        leaf = field.rpartition(".")[2]
        for member in self.members(field, [tag]):
            if leaf in member.model_fields:
                return to_jsonable_python(member.model_fields[leaf].get_default(call_default_factory=True))
        return None

    def require(self, field: str, where: str) -> None:
        """Raise UserError, naming `where` and similar names, unless some model has the field."""
        if field in self.owners:
            return
        if field in self.sections:
            example = next(name for name in self.owners if name.startswith(f"{field}."))
            raise UserError(f"{where} is a section, not a field; name one of its fields, such as {example}")
        section = self.sections.get(field.partition(".")[0], (self.model,))
        names = " or ".join(model.__name__ for model in section)
        raise UserError(f"{where} is not a field of {names}{self.nearest(field)}")

    def nearest(self, field: str) -> str:
        """Suggest fields for a wrong name, as `; did you mean A, B?`; if some have the same last part, only those."""
        leaf = field.rpartition(".")[2]
        same = [name for name in self.owners if name.rpartition(".")[2] == leaf]
        if same:
            return f"; did you mean {', '.join(same)}?"
        return nearest_names(field, [*self.owners, *self.sections], count=1)

    def nest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Turn dotted fields into the nested form of a configuration."""
        nested: dict[str, Any] = {}
        for field, value in values.items():
            section, _, leaf = field.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[leaf] = value
        return nested

    def field_of(self, location: tuple[int | str, ...]) -> str:
        """Name the field, or the section, that pydantic's error location points to."""
        section, *rest = [*map(str, location), ""]
        return next((f"{section}.{part}" for part in rest if f"{section}.{part}" in self.owners), section)


def show(value: Any) -> str:
    """Write a value on one line: text in quotes, everything else as in YAML."""
    return repr(value) if isinstance(value, str) else json.dumps(value, default=str)


def complain(where: str, error: ValidationError, verb: str = "is") -> UserError:
    """Make an error of pydantic's first complaint: `WHERE is 30, but must be less than or equal to 20`."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return UserError(f"{where} is missing")
    if first["type"] == "union_tag_invalid":
        tag, tags = first["ctx"]["tag"], first["ctx"]["expected_tags"]
        return UserError(f"{where}: {tag!r} is none of {tags}{nearest_names(tag, re.findall(QUOTED, tags))}")
    if not message.startswith("Input should "):
        return UserError(f"{where}: {message}")
    rule = message.removeprefix("Input should ")
    hint = nearest_names(str(first["input"]), re.findall(QUOTED, rule)) if first["type"] == "literal_error" else ""
    return UserError(f"{where} {verb} {show(first['input'])}, but must {rule}{hint}")


def _models(annotation: Any) -> Members:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return tuple(model for part in get_args(annotation) for model in _models(part))
    return ()
