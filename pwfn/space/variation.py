"""How trials differ: fixed fields, varied fields and their conditions. Turns parameters into a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from pwfn.errors import UserError
from pwfn.space.declaration import Origin
from pwfn.space.domains import Interval, Varied, is_among
from pwfn.space.fields import Fields, complain, show

Params = dict[str, Any]


@dataclass(frozen=True)
class Variation:
    """Fixed fields and varied fields, both by dotted name.

    `vary` has the order in which values are chosen: sorted by name, except that a field comes after those on which it
    depends. So the order of lines in the file has no effect.
    """

    fixed: dict[str, Any]
    vary: dict[str, Varied]
    fields: Fields = field(repr=False, compare=False)
    origin: Origin = field(repr=False, compare=False)

    @classmethod
    def checked(cls, fixed: dict[str, Any], vary: dict[str, Varied], fields: Fields, origin: Origin) -> Variation:
        """Build a variation, and check that a configuration is valid at every bound and with every option.

        A field whose conditions the command line has made impossible is removed.

        Raises:
            UserError: naming the field, its value and what is allowed.
        """
        for name in vary:
            if name in fixed:
                raise UserError(f"{origin.at('vary', name)} is also under fixed; keep one of them")
        variation = cls(fixed, _ordered(vary, fields, origin), fields, origin)
        settled = variation._settled()
        settled._check_values()
        return settled

    def walk(self, choose: Callable[[str, Params], Any]) -> Params:
        """Choose a value for each field that varies in a trial; `choose` gets the field and the earlier values."""
        params: Params = {}
        for name in self.vary:
            if self.applies(name, params):
                params[name] = choose(name, params)
        return params

    def applies(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether the conditions of a varied field hold, given the values of the fields that come before it."""
        return all(is_among(self.value(field, params), accepted) for field, accepted in self.vary[name].when.items())

    def value(self, name: str, params: Mapping[str, Any]) -> Any:
        """Value of any field in a trial: the varied one, else the fixed one, else the default."""
        for given in (params, self.fixed):
            if name in given:
                return given[name]
        selector = self.fields.selector(name)
        return self.fields.default(name, None if selector in (None, name) else self.value(selector, params))

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether these are exactly the fields that vary together, each of them within its domain."""
        expected = self.walk(lambda name, _: params.get(name))
        return expected.keys() == params.keys() and all(
            self.vary[name].domain.contains(params[name]) for name in params
        )

    def params_of(self, values: Mapping[str, Any]) -> Params | None:
        """Take the parameters of a trial from its fields by dotted name; None if the trial lies outside the space."""
        params = self.walk(lambda name, _: self.vary[name].domain.normal(values.get(name)))
        return params if self.contains(params) else None

    def example(self, forced: Mapping[str, Any]) -> Params:
        """Build the parameters of one trial: forced values, and for other fields the low end or the first option."""
        return self.walk(lambda name, _: forced.get(name, self.vary[name].domain.probes[0]))

    def complete(self, setting: Mapping[str, Any], where: str) -> Params:
        """Complete a setting with the defaults of the varied fields that it leaves out.

        Raises:
            UserError: a value or a default is outside its domain, or a field does not vary in this setting.
        """
        params = self.walk(lambda name, before: self._given_or_default(name, setting, before, where))
        for name in setting:
            self.fields.require(name, f"{where}.{name}")
            if name not in self.vary:
                raise UserError(f"{where}.{name} is not varied; a setting names varied fields ({', '.join(self.vary)})")
            if name not in params:
                raise UserError(f"{where}.{name} does not apply here: it varies as {self.vary[name]}")
        return params

    def config(self, params: Mapping[str, Any], suspect: str | None = None) -> BaseModel:
        """Build and validate the configuration of a trial.

        Raises:
            UserError: names the field at fault; if the fault lies between several fields, it names `suspect`.
        """
        values = {name: value for name, value in self.fixed.items() if self._belongs(name, params)} | dict(params)
        selectors = {self.fields.selector(name) for name in values} - {None}
        values |= {selector: self.value(selector, params) for selector in selectors if selector is not None}
        try:
            return self.fields.model.model_validate_json(to_json(self.fields.nest(values)))
        except ValidationError as error:
            raise self._blame(error, params, suspect) from None

    def _blame(self, error: ValidationError, params: Mapping[str, Any], suspect: str | None) -> UserError:
        first = error.errors()[0]
        if not first["loc"]:  # between sections
            return complain(self.origin.file, error)
        culprit = self.fields.field_of(first["loc"])
        if first["type"] == "union_tag_invalid":
            culprit = self.fields.selector(culprit) or culprit
        if culprit in params:
            return complain(self.origin.at("vary", culprit), error, verb="includes")
        if culprit not in self.fixed and suspect is not None:
            return complain(f"{self.origin.at('vary', suspect)} includes {show(params[suspect])}", error)
        overridden = [name for name in self.origin.overrides if name.startswith(f"{culprit}.")]
        return complain(self.origin.at("fixed", overridden[-1] if overridden else culprit), error)

    def _given_or_default(self, name: str, setting: Mapping[str, Any], before: Params, where: str) -> Any:
        value = setting[name] if name in setting else self.value(name, before)
        domain = self.vary[name].domain
        if domain.contains(value):
            return value
        if name in setting:
            raise UserError(f"{where}.{name} is {show(value)}, but varies over {domain}")
        raise UserError(f"{where} leaves out {name}, whose default {show(value)} is outside its domain: {domain}")

    def _belongs(self, name: str, params: Mapping[str, Any]) -> bool:
        selector = self.fields.selector(name)
        if selector is None or selector == name:
            return True
        return bool({*self.fields.members(name, [self.value(selector, params)])} & {*self.fields.owners[name]})

    def _tags(self, selector: str, when: Mapping[str, tuple[Any, ...]]) -> tuple[Any, ...]:
        if selector in when:
            return when[selector]
        return self.vary[selector].domain.probes if selector in self.vary else (self.value(selector, {}),)

    def _can_be(self, name: str, value: Any) -> bool:
        if name in self.vary:
            return self.vary[name].domain.contains(value)
        return is_among(value, (self.value(name, {}),))

    def _settled(self) -> Variation:
        """Leave out what the command line made impossible: conditions that never hold, fields of unselected models."""
        gone, vary = {*self.origin.overrides}, dict[str, Varied]()
        settled = replace(self, vary=vary)
        for name, varied in self.vary.items():
            if settled._is_possible(name, varied, gone):
                vary[name] = varied
            else:
                gone.add(name)
        fixed = {name: value for name, value in self.fixed.items() if settled._is_selected(name, {}, "fixed")}
        return replace(settled, fixed=fixed)

    def _is_possible(self, name: str, varied: Varied, gone: Set[str]) -> bool:
        for condition, accepted in varied.when.items():
            domain = self.vary[condition].domain if condition in self.vary else None
            if isinstance(domain, Interval) and not domain.is_int:
                raise UserError(
                    f"{self.origin.at('vary', name)}.when: {condition} varies as {domain}, which is as good as never "
                    f"exactly {show(accepted[0])}; a condition needs a choice or whole numbers"
                )
            never = [value for value in accepted if not self._can_be(condition, value)]
            if never and condition not in gone:
                raise UserError(f"{self.origin.at('vary', name)}.when: {condition} is never {show(never[0])}")
            if len(never) == len(accepted):
                return False
        return self._is_selected(name, varied.when, "vary")

    def _is_selected(self, name: str, when: Mapping[str, tuple[Any, ...]], part: str) -> bool:
        """Whether the models that can be selected have the field: all if it varies, at least one if it is fixed."""
        selector = self.fields.selector(name)
        if selector is None or selector == name:
            return True
        owners, selected = self.fields.owners[name], self.fields.members(name, self._tags(selector, when))
        lacking = [model.__name__ for model in selected if model not in owners]
        if not lacking or (part == "fixed" and len(lacking) < len(selected)):
            return True
        if selector in self.origin.overrides and name not in self.origin.overrides:
            return False
        found = f"a field of {', '.join(model.__name__ for model in owners)}"
        cure = f"; add `when: {{{selector}: ...}}`" if len(lacking) < len(selected) else ""
        where = self.origin.at(part, name)
        raise UserError(f"{where} is {found}, but {selector} selects {', '.join(lacking)}{cure}")

    def _check_values(self) -> None:
        self.config(self.example({}))
        for name, varied in self.vary.items():
            for value in varied.domain.probes:
                params = self.example(self._forced(name, value))
                if name not in params:
                    raise UserError(f"{self.origin.at('vary', name)}.when can never hold: {varied}")
                self.config(params, suspect=name)

    def _forced(self, name: str, value: Any) -> Params:
        """Values of the field and of its conditions, with which the field varies and has this value."""
        forced = {name: value}
        for condition, accepted in self.vary[name].when.items():
            if condition in self.vary:
                possible = next(each for each in accepted if self._can_be(condition, each))
                forced |= self._forced(condition, possible)
        return forced


def _ordered(vary: Mapping[str, Varied], fields: Fields, origin: Origin) -> dict[str, Varied]:
    """Sort fields by name, except that a field comes after those that decide whether and how it varies."""
    waiting, ordered = dict(sorted(vary.items())), dict[str, Varied]()
    while waiting:
        for name, varied in waiting.items():
            if not (varied.when.keys() | {fields.selector(name)} - {name}) & waiting.keys():
                ordered[name] = waiting.pop(name)
                break
        else:
            raise UserError(f"{origin.file}: under vary, conditions go in a circle: {', '.join(waiting)}")
    return ordered
