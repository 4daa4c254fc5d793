"""The parts of a search space's declaration; each is read by itself, and its shape, names and types are checked."""

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
CHECKPOINT_MINUTES = 5.0
"""Minutes between two checkpoints inside a round, where nobody says otherwise."""
HYPERVOLUME = "hypervolume"
"""Name of what a search learns with `search.stage: hypervolume`."""
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
    """Rounds that every trial runs before it is first judged; each later time comes after three times as many."""
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = 2
    """Of this many trials one goes on, together with all others on its front."""


class SearchConfig(BaseModel):
    """What proposes trials, how many there are, and when the search ends."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    sampler: Sampler = "tpe"
    """Tree-structured Parzen estimator, NSGA-II, NSGA-III, Gaussian process, or uniform draws."""
    trials: Annotated[int, Field(ge=1)] = 64
    """Number of trials to start."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the study: it seeds the sampler and the data split and, together with a trial's number, each trial."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Most trials that run at once; None lets as many run as the cluster has room for."""
    keep_models: Annotated[int, Field(ge=1)] | None = 50
    """Compressed networks to keep on disk: those of the best trials, spread over the front, then those of their
    replicates; None keeps all."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Trials that are proposed together, from the results of earlier batches only. Then no proposal depends on which
    trial ends first or on how many run at once, but free slots wait for the slowest trial of a batch. None proposes a
    trial whenever there is room for it."""
    pruning: PruningConfig | None = None
    """None runs every trial to its end."""
    stage: Annotated[int, Field(ge=0)] | Literal["last", "hypervolume"] = "last"
    """Which network of a trial that leaves several (`method.stages`) the search learns from: the last one, that of
    stage 0, 1, ..., or all of them, by the hypervolume that they dominate together. Fronts always have all."""
    baselines: bool = True
    """Also run k-means with 4, 8, 16, 32 and 64 values: plain, weighted by Fisher information, and so with GPTQ: what a
    search has to beat. It costs seconds, with GPTQ as much as to run 500 images through two networks once for each
    layer. No sampler is told of them."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Stop after this many hours of the command; the same command again continues, for as many hours more."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Stop when all trials of the study together have held GPUs for this many hours."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = CHECKPOINT_MINUTES
    """Minutes between two checkpoints inside a round, of the float network's training too: what a lost process costs at
    most. Each is about five times as large as the network."""
    trial_minutes: Annotated[float, Field(gt=0)] | None = None
    """End a trial that runs longer than this many minutes, because it hangs or is slow, as failed (timeout)."""


class Override(NamedTuple):
    """A value from the command line that replaces the one in the file; `label` names it in errors: `--set method.b`."""

    label: str
    value: Any


@dataclass(frozen=True)
class Origin:
    """Where a declaration comes from: a file, and overrides from the command line by field (`search.trials`)."""

    file: str
    overrides: Mapping[str, Override] = field(default_factory=dict)

    def at(self, part: str, name: str) -> str:
        """Say where a field was declared, for an error: in a part of the file, or on the command line."""
        name_given = f"{part}.{name}" if part in ("search", "constraints") else name
        override = self.overrides.get(name_given)
        return f"{self.file}: {part}.{name}" if override is None else override.label


def check_parts(declared: Any, origin: Origin) -> dict[str, Any]:
    """Return a copy that has every part; a part that is empty in the file counts as left out."""
    allowed = ", ".join(PARTS)
    if not isinstance(declared, dict):
        found = "empty" if declared is None else show(declared)
        raise UserError(f"{origin.file} is {found}, but must be a mapping with the keys {allowed}")
    for name, part in declared.items():
        if name not in PARTS:
            raise UserError(
                f"{origin.file}: {name} is not a key of a search space ({allowed}){nearest_names(name, PARTS)}"
            )
        if part is not None and not isinstance(part, PARTS[name]):
            kind = "list" if PARTS[name] is list else "mapping"
            raise UserError(f"{origin.file}: {name} is {show(part)}, but must be a {kind}")
    return {name: kind() if declared.get(name) is None else declared[name] for name, kind in PARTS.items()}


def read_fixed(declared: Mapping[str, Any], origin: Origin, fields: Fields) -> dict[str, Any]:
    """Flatten nested sections to dotted fields, apply the overrides, and check that every field exists."""
    fixed: dict[str, Any] = {}
    for name, value in declared.items():
        where = f"{origin.file}: fixed.{name}"
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
    for name, (label, value) in origin.overrides.items():
        if name.partition(".")[0] not in ("search", "constraints"):
            _require_fixable(name, label, fields)
            fixed[name] = value
    return fixed


def read_vary(declared: Mapping[str, Any], origin: Origin, fields: Fields) -> dict[str, Varied]:
    """Read domain and conditions of every field without an override; check that each exists and may vary."""
    vary = {}
    for name, domain in declared.items():
        if name in origin.overrides:
            continue
        where = origin.at("vary", name)
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


def read_objectives(declared: Mapping[str, Any], origin: Origin) -> dict[str, Direction]:
    """Read a mapping from metrics to directions; if it is empty: accuracy up and unique values down."""
    for metric, direction in declared.items():
        where = f"{origin.file}: objectives.{metric}"
        require_metric(metric, where)
        if direction not in ("maximize", "minimize"):
            hint = nearest_names(str(direction), ("maximize", "minimize"))
            raise UserError(f"{where} is {show(direction)}, but must be 'maximize' or 'minimize'{hint}")
    return dict(declared) or dict(DEFAULT_OBJECTIVES)


def require_metric(metric: str, where: str) -> None:
    """Raise UserError, naming `where`, unless this is a metric that a search may know."""
    if metric.startswith("test_"):
        raise UserError(f"{where} is refused: the search never sees test data; use {metric.replace('test', 'val')}")
    if metric not in SEARCHABLE:
        raise UserError(f"{where} is not a metric ({', '.join(SEARCHABLE)}){nearest_names(metric, SEARCHABLE)}")


def with_overrides(declared: Mapping[str, Any], part: str, origin: Origin) -> dict[str, Any]:
    """Put the overrides of a part into its declaration, also those of a setting inside: `search.pruning.grace_rounds`.

    Raises:
        UserError: a setting is named inside one that has none.
    """
    result = dict(declared)
    for name, (label, value) in origin.overrides.items():
        first, _, rest = name.partition(".")
        outer, dot, inner = rest.partition(".")
        if first != part:
            continue
        if not dot:
            result[outer] = value
            continue
        whole = result.get(outer)
        if whole is not None and not isinstance(whole, dict):
            raise UserError(f"{label}: {part}.{outer} is {show(whole)} and has no settings of its own")
        result[outer] = {**(whole or {}), inner: value}
    return result


def read_search(declared: Mapping[str, Any], origin: Origin) -> SearchConfig:
    """Read the settings of the search; overrides replace what the file says."""
    declared = with_overrides(declared, "search", origin)
    for name, value in declared.items():
        where = origin.at("search", name)
        _require_setting(name, SearchConfig, where, "the search")
        if name == "pruning" and isinstance(value, dict):
            for setting in value:
                exact = origin.at("search", f"{name}.{setting}")
                at = exact if f"search.{name}.{setting}" in origin.overrides else f"{where}.{setting}"
                _require_setting(setting, PruningConfig, at, "pruning")
    try:
        return SearchConfig.model_validate_json(to_json(declared))
    except ValidationError as error:
        first, *inner = map(str, error.errors()[0]["loc"])
        name = ".".join([first, *inner])
        given = f"search.{name}" in origin.overrides
        where = origin.at("search", name) if given else ".".join([origin.at("search", first), *inner])
        raise complain(where, error) from None


def check_pruning(search: SearchConfig, metrics: Iterable[str], origin: Origin) -> None:
    """Raise UserError if trials are pruned by a metric that is known only when a trial has ended."""
    for metric in metrics:
        if search.pruning is not None and metric in METRICS and METRICS[metric].known == "end":
            where = origin.at("search", "pruning")
            raise UserError(f"{where}: {metric} is known only when a trial has ended; judge by others, or prune none")


def check_stage(search: SearchConfig, objectives: Iterable[str], origin: Origin) -> None:
    """Raise UserError if trials shall be judged by a hypervolume that has no reference point."""
    for metric in objectives if search.stage == HYPERVOLUME else ():
        if METRICS[metric].low is None or METRICS[metric].high is None:
            where = origin.at("search", "stage")
            raise UserError(
                f"{where}: the hypervolume needs objectives of a known range, but {metric} has none; "
                "learn from a stage, or optimise another metric"
            )


def _require_setting(name: str, model: type[BaseModel], where: str, owner: str) -> None:
    if name not in model.model_fields:
        hint = nearest_names(name, model.model_fields)
        raise UserError(f"{where} is not a setting of {owner} ({', '.join(model.model_fields)}){hint}")


def _require_fixable(name: str, where: str, fields: Fields) -> None:
    fields.require(name, where)
    if name == "seed":
        raise UserError(f"{where} follows from the study's seed and the trial's number; set search.seed instead")
