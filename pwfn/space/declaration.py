"""The parts of a search space's declaration, each read and checked by itself: shapes, names and types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from pwfn.errors import UserError, nearest_names
from pwfn.metrics import METRICS, Direction
from pwfn.space.domains import Varied, read_varied
from pwfn.space.fields import Fields, complain, show

Sampler = Literal["tpe", "nsga2", "nsga3", "gp", "random"]

PARTS: dict[str, type] = {
    "fixed": dict, "vary": dict, "objectives": dict, "constraints": dict, "search": dict, "start_with": list,
}  # fmt: skip
SEARCHABLE = tuple(name for name, metric in METRICS.items() if metric.is_searchable)
"""Metrics that a search may optimise or constrain."""
DEFAULT_OBJECTIVES: dict[str, Direction] = {name: METRICS[name].direction for name in ("val_top1", "unique_values")}
SHARED_BY_ALL_TRIALS = {
    "seed": "each trial's seed follows from search.seed",
    "data.split_seed": "all trials share one split",
    "data.validation_fraction": "all trials share one split",
    "data.validation_images": "all trials are compared on the same images",
}


class PruningConfig(BaseModel):
    """When a trial is ended early because others are better (after MO-ASHA)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    grace_rounds: Annotated[int, Field(ge=1)] = 3
    """Rounds that every trial may run before it is judged; each next judgement comes after three times as many."""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 2
    """One trial in so many goes on, and with it the others of its front."""


class SearchConfig(BaseModel):
    """Who proposes trials, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    sampler: Sampler = "tpe"
    """Tree-structured Parzen estimator, NSGA-II, NSGA-III, Gaussian process, or uniform draws."""
    trials: Annotated[int, Field(ge=1)] = 64
    """Trials to start."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the study: of the sampler, the split, and through a trial's number of each trial."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Most trials that run at once; None leaves it to the cluster's resources."""
    keep_models: Annotated[int, Field(ge=1)] | None = 50
    """Compressed networks to keep on disk: those of the best trials, spread over the front, then of
    their replicates; None keeps all."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Trials proposed together, knowing all earlier batches and nothing else: no proposal depends on which trial ends
    first or how many run at once, but slots wait for the slowest of a batch. None proposes whenever there is room."""
    pruning: PruningConfig | None = None
    """None runs every trial to its end."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Stop after so many hours of this command; the same command again goes on, with as many hours more."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Stop when all trials of the study together have held GPUs for so long."""
    trial_minutes: Annotated[float, Field(gt=0)] | None = None
    """End a trial that runs longer than this, hung or slow, as failed (timeout)."""


class Override(NamedTuple):
    """A value from the command line that takes the place of what the file says; the label names it in errors."""

    label: str
    value: Any


@dataclass(frozen=True)
class Source:
    """Where a declaration comes from: a file, and overrides by field (`method.b`, `search.trials`)."""

    file: str
    overrides: Mapping[str, Override] = field(default_factory=dict)

    def at(self, part: str, name: str) -> str:
        """Say where a field of a part stands, for an error."""
        override = self.overrides.get(f"search.{name}" if part == "search" else name)
        return f"{self.file}: {part}.{name}" if override is None else override.label


def check_parts(declared: Any, source: Source) -> dict[str, Any]:
    """Return a copy with every part present; an empty part counts as left out."""
    allowed = ", ".join(PARTS)
    if not isinstance(declared, dict):
        found = "empty" if declared is None else show(declared)
        raise UserError(f"{source.file} is {found}, but must be a mapping with the keys {allowed}")
    for name, part in declared.items():
        if name not in PARTS:
            raise UserError(
                f"{source.file}: {name} is not a key of a search space ({allowed}){nearest_names(name, PARTS)}"
            )
        if part is not None and not isinstance(part, PARTS[name]):
            kind = "list" if PARTS[name] is list else "mapping"
            raise UserError(f"{source.file}: {name} is {show(part)}, but must be a {kind}")
    return {name: kind() if declared.get(name) is None else declared[name] for name, kind in PARTS.items()}


def read_fixed(declared: Mapping[str, Any], source: Source, fields: Fields) -> dict[str, Any]:
    """Flatten nested sections to dotted fields, and put the overrides over them; all fields exist."""
    fixed: dict[str, Any] = {}
    for name, value in declared.items():
        where = f"{source.file}: fixed.{name}"
        if "." in name:
            section, _, leaf = name.partition(".")
            raise UserError(f"{where}: fields are nested here, `{section}: {{{leaf}: {show(value)}}}`")
        if name not in fields.sections:
            _require_fixable(name, where, fields)
            fixed[name] = value
        elif not isinstance(value, dict):
            raise UserError(f"{where} is {show(value)}, but must be a mapping of its fields")
        else:
            for leaf, leaf_value in value.items():
                _require_fixable(f"{name}.{leaf}", f"{where}.{leaf}", fields)
                fixed[f"{name}.{leaf}"] = leaf_value
    for name, (label, value) in source.overrides.items():
        if not name.startswith("search."):
            _require_fixable(name, label, fields)
            fixed[name] = value
    return fixed


def read_vary(declared: Mapping[str, Any], source: Source, fields: Fields) -> dict[str, Varied]:
    """Read the domains and conditions of all fields without an override; the fields exist and may differ by trial."""
    vary = {}
    for name, domain in declared.items():
        if name in source.overrides:
            continue
        where = source.at("vary", name)
        fields.require(name, where)
        reason = SHARED_BY_ALL_TRIALS.get(name)
        if name.startswith("resources."):
            reason = "all trials of a study occupy the same"
        if reason is not None:
            raise UserError(f"{where} cannot vary: {reason}")
        vary[name] = read_varied(domain, where)
        for condition in vary[name].when:
            fields.require(condition, f"{where}.when.{condition}")
    return vary


def read_objectives(declared: Mapping[str, Any], source: Source) -> dict[str, Direction]:
    """Read metric -> direction; none declared means accuracy up and unique values down."""
    for metric, direction in declared.items():
        where = f"{source.file}: objectives.{metric}"
        require_metric(metric, where)
        if direction not in ("maximize", "minimize"):
            hint = nearest_names(str(direction), ("maximize", "minimize"))
            raise UserError(f"{where} is {show(direction)}, but must be 'maximize' or 'minimize'{hint}")
    return dict(declared) or dict(DEFAULT_OBJECTIVES)


def require_metric(metric: str, where: str) -> None:
    """Raise UserError, naming `where`, unless the search may know the metric."""
    if metric.startswith("test_"):
        raise UserError(f"{where} is refused: the search never sees test data; use {metric.replace('test', 'val')}")
    if metric not in SEARCHABLE:
        raise UserError(f"{where} is not a metric ({', '.join(SEARCHABLE)}){nearest_names(metric, SEARCHABLE)}")


def read_search(declared: Mapping[str, Any], source: Source) -> SearchConfig:
    """Read who proposes, and how many trials; overrides come first."""
    prefix = "search."
    overrides = {k.removeprefix(prefix): v.value for k, v in source.overrides.items() if k.startswith(prefix)}
    declared = {**declared, **overrides}
    for name, value in declared.items():
        where = source.at("search", name)
        _require_setting(name, SearchConfig, where, "the search")
        if name == "pruning" and isinstance(value, dict):
            for setting in value:
                _require_setting(setting, PruningConfig, f"{where}.{setting}", "pruning")
    try:
        return SearchConfig.model_validate_json(to_json(declared))
    except ValidationError as error:
        field, *inner = map(str, error.errors()[0]["loc"])
        raise complain(".".join([source.at("search", field), *inner]), error) from None


def check_pruning(search: SearchConfig, metrics: Iterable[str], source: Source) -> None:
    """Raise UserError if trials shall be judged after a round by what is known only at their end."""
    for metric in metrics:
        if search.pruning is not None and metric in METRICS and METRICS[metric].known == "end":
            where = source.at("search", "pruning")
            raise UserError(f"{where}: {metric} is known only when a trial has ended; judge by others, or prune none")


def _require_setting(name: str, model: type[BaseModel], where: str, owner: str) -> None:
    if name not in model.model_fields:
        hint = nearest_names(name, model.model_fields)
        raise UserError(f"{where} is not a setting of {owner} ({', '.join(model.model_fields)}){hint}")


def _require_fixable(name: str, where: str, fields: Fields) -> None:
    fields.require(name, where)
    if name == "seed":
        raise UserError(f"{where} follows from the study's seed and the trial's number; set search.seed instead")
