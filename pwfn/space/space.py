"""A search space: what is fixed, what varies and how, what is optimised. Read from YAML and checked as a whole.

    fixed:                                    # fields of TrialConfig, nested
      data: {name: digits}
    vary:                                     # dotted field -> domain: float, log_float, int, log_int or choice
      method.b: {int: [3, 8]}
      training.optimizer: {choice: [sgd, adam]}
      training.momentum: {float: [0, 0.95], when: {training.optimizer: sgd}}
    objectives: {val_top1: maximize, unique_values: minimize}
    constraints: {val_top1: {max_drop: 0.05}} # min, max, or max_drop: at most this far below the float network
    search: {sampler: tpe, trials: 64, seed: 0}
    start_with: [{method.b: 7}]               # known good settings; a field that is left out has its default

Only this module reads YAML. It imports neither torch nor Ray nor Optuna, so that a plan shows in a moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pwfn.config import ResourcesConfig, TrialConfig
from pwfn.errors import UserError, nearest_names
from pwfn.metrics import Direction
from pwfn.seeds import derive_seed
from pwfn.space.constraints import Constraint, declared_constraints, read_constraints
from pwfn.space.declaration import (
    HYPERVOLUME,
    Origin,
    Override,
    SearchConfig,
    check_parts,
    check_pruning,
    check_stage,
    read_fixed,
    read_objectives,
    read_search,
    read_vary,
)
from pwfn.space.domains import Choice
from pwfn.space.fields import Fields, show
from pwfn.space.variation import Params, Variation

_INSTALLED = Path(__file__).parents[1] / "search_spaces"
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "search_spaces"
"""Where the shipped spaces lie: inside the installed package, or at the root of a checkout."""

TRIAL_FIELDS = Fields(TrialConfig)


class PlanRow(NamedTuple):
    """One line of the plan that a dry run shows: a part of the space, a name in it, and its value as text."""

    part: str
    name: str
    value: str


@dataclass(frozen=True)
class SearchSpace:
    """A checked search space: every trial that is proposed from it has a valid `TrialConfig`."""

    name: str
    variation: Variation
    objectives: dict[str, Direction]
    constraints: tuple[Constraint, ...]
    search: SearchConfig
    start_with: tuple[Params, ...]

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        overrides: Sequence[str] = (),
        seed: int | None = None,
        trials: int | None = None,
    ) -> SearchSpace:
        """Read a YAML file, or a shipped space by its name; the command line overrides the file.

        Args:
            path_or_name: A file, or `NAME` or `NAME.yaml` of search_spaces/.
            overrides: `FIELD=VALUE`, the value in YAML. A field that varies becomes fixed; `search.*` and
                `constraints.*` can be set too. A constraint that is set to null is dropped.
            seed: Replaces search.seed.
            trials: Replaces search.trials.

        Raises:
            UserError: naming file, field, value, what is allowed and the nearest right name.
        """
        path = find_space(path_or_name)
        given = _once(
            [
                *map(_read_override, overrides),
                *([("search.seed", Override("--seed", seed))] if seed is not None else []),
                *([("search.trials", Override("--trials", trials))] if trials is not None else []),
            ]
        )
        return cls.read(path.stem, _read_yaml(path), Origin(path.name, given))

    @classmethod
    def from_resolved(cls, resolved: Mapping[str, Any]) -> SearchSpace:
        """Rebuild the space from what `resolved` returned, as study.json keeps it."""
        parts = {key: value for key, value in resolved.items() if key != "name"}
        return cls.read(resolved["name"], parts, Origin("study.json"))

    @classmethod
    def read(cls, name: str, declared: Any, origin: Origin, fields: Fields = TRIAL_FIELDS) -> SearchSpace:
        """Check a declaration that was parsed from YAML, for configurations with these fields.

        Raises:
            UserError: naming file, field, value, what is allowed and the nearest right name.
        """
        parts = check_parts(declared, origin)
        vary = read_vary(parts["vary"], origin, fields)
        variation = Variation.checked(read_fixed(parts["fixed"], origin, fields), vary, fields, origin)
        space = cls(
            name=name,
            variation=variation,
            objectives=read_objectives(parts["objectives"], origin),
            constraints=read_constraints(parts["constraints"], origin),
            search=read_search(parts["search"], origin),
            start_with=_read_start(parts["start_with"], parts["vary"], variation),
        )
        check_pruning(space.search, space.told_metrics, origin)
        check_stage(space.search, space.objectives, origin)
        return space

    def start_settings(self) -> list[Params]:
        """Known good settings, with all varied fields, in the order in which they run before anything else."""
        return [dict(setting) for setting in self.start_with]

    def trial_config(self, params: Mapping[str, Any], number: int, replicate: int = 0) -> TrialConfig:
        """Configure trial `number`, or one of its replicates (from 1), which differs only in its seed.

        The seed is derived from the seed of the study, the number and the replicate.

        Raises:
            UserError: a value that its field does not allow.
        """
        seed = self.search.seed
        split_seed = self.variation.value("data.split_seed", params)
        derived = {
            "seed": derive_seed(seed, "trial", number, *(("replicate", replicate) if replicate else ())),
            "data.split_seed": seed if split_seed is None else split_seed,
        }
        return cast(TrialConfig, self.variation.config({**params, **derived}))

    def float_networks(self) -> list[TrialConfig]:
        """Return one configuration for each float network that the trials start from.

        Raises:
            UserError: a field of the model, the data or the baseline varies over a range, so that each trial would need
                a float network of its own.
        """
        return [self.trial_config(params, 0) for params in self.float_network_params()]

    def float_network_params(self) -> list[Params]:
        """Give parameters of one trial for each way in which trials differ before they are compressed.

        Raises:
            UserError: such a field varies over a range.
        """
        options = {}
        for name, varied in self.variation.vary.items():
            if name.partition(".")[0] in ("model", "data", "baseline"):
                if not isinstance(varied.domain, Choice):
                    where = self.variation.origin.at("vary", name)
                    raise UserError(f"{where} must be a choice: every value needs a float network of its own")
                options[name] = varied.domain.options
        chosen = (dict(zip(options, values, strict=True)) for values in product(*options.values()))
        return [self.variation.example(forced) for forced in chosen]

    @property
    def told_metrics(self) -> tuple[str, ...]:
        """Columns of a point's row that place it on the front: objectives, and what decides the constraints."""
        deciding = (column for constraint in self.constraints for column in constraint.columns)
        return tuple(dict.fromkeys([*self.objectives, *deciding]))

    @property
    def methods(self) -> set[str]:
        """Names of the methods that trials can have."""
        varied = self.variation.vary.get("method.name")
        if varied is not None and isinstance(varied.domain, Choice):
            return set(varied.domain.options)
        return {self.trial_config(self.variation.example({}), 0).method.name}

    @property
    def learned(self) -> dict[str, Direction]:
        """What the sampler optimises: the objectives, or the hypervolume of each trial's own points."""
        return {HYPERVOLUME: "maximize"} if self.search.stage == HYPERVOLUME else self.objectives

    @property
    def learned_metrics(self) -> tuple[str, ...]:
        """What the sampler is told of a trial: `learned`, and what decides the constraints where it knows them."""
        return (HYPERVOLUME,) if self.search.stage == HYPERVOLUME else self.told_metrics

    @property
    def resources(self) -> ResourcesConfig:
        """The resources that each trial occupies."""
        return self.trial_config(self.variation.example({}), 0).resources

    def resolved(self) -> dict[str, Any]:
        """The space as JSON data in the form of its file, overrides included; `from_resolved` reads it."""
        return {
            "name": self.name,
            "fixed": self.variation.fields.nest(self.variation.fixed),
            "vary": {name: varied.declaration for name, varied in self.variation.vary.items()},
            "objectives": dict(self.objectives),
            **({"constraints": declared_constraints(self.constraints)} if self.constraints else {}),
            "search": self.search.model_dump(mode="json"),
            "start_with": self.start_settings(),
        }

    def plan(self) -> list[PlanRow]:
        """List what would run: the search, objectives and constraints, resources of a trial, and every field."""
        resources = self.resources.model_dump(mode="json")
        settings = (
            ", ".join(f"{name}={show(value)}" for name, value in setting.items()) for setting in self.start_with
        )
        rows = [
            ("search", self.search.model_dump(mode="json").items()),
            ("objective", self.objectives.items()),
            ("constraint", ((constraint.metric, str(constraint)) for constraint in self.constraints)),
            ("resources per trial", resources.items()),
            ("fixed", self.variation.fixed.items()),
            ("varied", ((name, str(varied)) for name, varied in self.variation.vary.items())),
            ("starts with", enumerate(settings)),
        ]
        return [
            PlanRow(part, str(name), v if isinstance(v, str) else show(v)) for part, items in rows for name, v in items
        ]


def find_space(path_or_name: str | Path) -> Path:
    """Find a file by its path, or a shipped space by its name.

    Raises:
        UserError: there is neither; lists the shipped spaces.
    """
    given = Path(path_or_name)
    for path in (given, SHIPPED / given, SHIPPED / f"{given}.yaml"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    hint = nearest_names(given.stem, names, count=1)
    raise UserError(f"no search space {str(path_or_name)!r}: neither a file nor one of {', '.join(names)}{hint}")


def _once(overrides: Sequence[tuple[str, Override]]) -> dict[str, Override]:
    """Map each name to its override.

    Raises:
        UserError: one of them is given twice.
    """
    given: dict[str, Override] = {}
    for name, override in overrides:
        if (first := given.get(name)) is not None:
            raise UserError(
                f"{override.label} is given twice, as {show(first.value)} ({first.label}) and {show(override.value)}; "
                "keep one of them"
            )
        given[name] = override
    return given


def _read_override(text: str) -> tuple[str, Override]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write FIELD=VALUE, such as method.b=7")
    name = name.strip()
    return name, Override(f"--set {name}", _parse(value, f"--set {text}"))


def _read_start(declared: Sequence[Any], vary: Mapping[str, Any], variation: Variation) -> tuple[Params, ...]:
    """Add defaults to each setting; leave out fields that the command line fixed, and repeated settings.

    A setting for another value of a field on which its other fields depend, such as another method, is left out.

    Args:
        declared: the settings as in the file.
        vary: the fields that vary in the file.
        variation: what is left of them.
    """
    gone = vary.keys() - variation.vary.keys()
    deciding = gone & variation.fixed.keys() & {name for each in vary.values() for name in each.get("when") or ()}
    settings: list[Params] = []
    for index, setting in enumerate(declared):
        where = f"{variation.origin.file}: start_with[{index}]"
        if not isinstance(setting, dict):
            raise UserError(f"{where} is {show(setting)}, but must be a mapping such as {{method.b: 7}}")
        if any(setting[name] != variation.fixed[name] for name in deciding & setting.keys()):
            continue
        params = variation.complete({name: value for name, value in setting.items() if name not in gone}, where)
        if params not in settings:
            settings.append(params)
    return tuple(settings)


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return _parse(text, path.name)


def _parse(text: str, where: str) -> Any:
    """Read YAML 1.2's plain data: 1e-4 is a number, `no` is text, no key stands twice, merge keys (`<<`) work."""
    try:
        return _plain(YAML(typ="safe", pure=True).load(text), where)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        problem = ", ".join(filter(None, (error.context, error.problem))).partition(" with value")[0]
        raise UserError(f"{where}: not valid YAML at {place}: {problem}") from None
    except (YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply, or something contains itself") from None


def _plain(value: Any, where: str) -> Any:
    """Refuse what YAML knows and JSON does not: keys that are no text, dates, sets, bytes."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise UserError(f"{where}: the key {show(key)} is no text; put it in quotes")
        return {key: _plain(each, where) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, where) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise UserError(f"{where}: {value} is read as a {type(value).__name__}; put it in quotes if it is text")
