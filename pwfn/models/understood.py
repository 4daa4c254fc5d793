"""What was understood of a network: where its weights come from, what was taken, and what will share values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
from timm.layers import CondConv2d
from torch import nn

from pwfn.metrics import LOW_COVERAGE
from pwfn.models.fusing import STANDARDISED_LAYERS, is_fusible
from pwfn.parameters import LeftOut, ParameterSets, left_out, shares_left_out, split_parameters

KINDS_SHOWN = 4
LINES_KINDS = 6
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Loading:
    """Where a network's weights come from, and what happened to them on the way."""

    source: str = "drawn at random"
    """A path, the name of pretrained weights, or that there are none."""
    container: str = ""
    """Keys of the file that lead to the weights, such as `model_ema`; empty where it holds nothing else."""
    is_ema: bool = False
    """Whether they are an exponential moving average."""
    other_kind_there: bool = False
    """Whether the file holds both raw weights and an average, so that the other could be taken."""
    num_loaded: int = 0
    """Tensors that were loaded."""
    renamed: tuple[str, ...] = ()
    """Those that have another name in the file."""
    resized: tuple[str, ...] = ()
    """Those that have another shape in the file, such as position embeddings."""
    left_out: tuple[str, ...] = ()
    """Tensors of the file that the network has no place for."""
    new_head: tuple[str, ...] = ()
    """Tensors of the classifier that are drawn anew."""


@dataclass(frozen=True)
class UnderstoodNetwork:
    """A network in words and numbers, before anything is computed with it."""

    name: str
    arguments: dict[str, Any]
    """Of its constructor, beside the defaults."""
    num_parameters: int
    loading: Loading
    coverage: float
    """Share of the parameters that will share values."""
    left_out: tuple[LeftOut, ...]
    """Kinds of parameters that will not."""
    computed_weights: tuple[str, ...] = ()
    """Layers that multiply by numbers computed from the stored ones: those are few, these are not."""
    fusible: bool = False
    """Whether fusing it for use would make new weights of the shared ones."""
    warnings: tuple[str, ...] = field(default=())
    """What a user should know before trusting a count of values."""

    def lines(self) -> list[str]:
        """Describe it in a few plain lines, warnings last."""
        arguments = "".join(f", {name}={value}" for name, value in self.arguments.items())
        shares = [f"{kind.kind} {kind.num_parameters / self.num_parameters:.2%}" for kind in self.left_out]
        more = f" and {len(shares) - LINES_KINDS} kinds more" if len(shares) > LINES_KINDS else ""
        rest = ", ".join(shares[:LINES_KINDS]) + more
        return [
            f"network: {self.name}{arguments}, {self.num_parameters:,} parameters",
            f"weights: {_describe(self.loading)}",
            f"sharing values: {self.coverage:.2%} of the parameters{f'; not {rest}' if rest else ''}",
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def describe_loading(network: nn.Module, *, include_norm: bool = False) -> UnderstoodNetwork:
    """Describe a network of `build_network`."""
    sets = split_parameters(network, include_norm=include_norm)
    rest = tuple(left_out(network, sets))
    loading = loading_of(network)
    modules = list(network.named_modules())
    computed = tuple(name for name, module in modules if isinstance(module, (*STANDARDISED_LAYERS, CondConv2d)))
    has_standardised = any(isinstance(module, STANDARDISED_LAYERS) for _, module in modules)
    record: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    fusible = not getattr(network, "fused", False) and is_fusible(network)
    return UnderstoodNetwork(
        name=record["architecture"],
        arguments=dict(getattr(network, "arguments", {})),
        num_parameters=sets.num_parameters,
        loading=loading,
        coverage=sets.coverage,
        left_out=rest,
        computed_weights=computed,
        fusible=fusible,
        warnings=(
            *_warnings(sets.coverage, rest, computed, has_standardised, fusible, loading),
            *_size_warnings(network),
        ),
    )


def loading_of(network: nn.Module) -> Loading:
    """Return what `build_network` noted; weights of another origin count as random."""
    loading = getattr(network, "loading", None)
    return loading if isinstance(loading, Loading) else Loading()


def coverage_warning(coverage: float, rest: Sequence[LeftOut]) -> str | None:
    """Say what is left out where few of the parameters share values; None where most do."""
    if coverage >= LOW_COVERAGE:
        return None
    kinds = ", ".join(f"{kind.kind} ({_some(kind.names)})" for kind in rest[:KINDS_SHOWN])
    return f"only {coverage:.1%} of the parameters share values; left out are {kinds}"


def describe_coverage(network: nn.Module, fixed: Collection[str]) -> str:
    """Say what share of a network's parameters the fixed ones are, and name the kinds of the others.

    Args:
        network: of `build_network`.
        fixed: names of the parameters that share values, as a file lists them.
    """
    named = dict(network.named_parameters())
    chosen = {name: parameter for name, parameter in named.items() if name in fixed}
    sets = ParameterSets(chosen, {name: parameter for name, parameter in named.items() if name not in chosen})
    shares = ", ".join(shares_left_out(network, sets)[:LINES_KINDS])
    return f"{sets.coverage:.1%} of all parameters{f'; not {shares}' if shares else ''}"


def _warnings(
    coverage: float,
    rest: Sequence[LeftOut],
    computed: Sequence[str],
    has_standardised: bool,
    fusible: bool,
    loading: Loading,
) -> list[str]:
    found = [coverage_warning(coverage, rest)]
    if computed:
        way_out = "; model.fuse: true makes weight-standardised layers plain" if has_standardised else ""
        found.append(
            f"{len(computed)} layers multiply by numbers that they compute from the stored values "
            f"({_some(computed)}): few stored values are not few factors{way_out}"
        )
    if fusible:
        found.append(
            "timm fuses this network for use, which makes many values of the shared ones; "
            "model.fuse: true fuses it first"
        )
    if loading.new_head:
        found.append(f"the classifier is new and knows nothing yet ({_some(loading.new_head)})")
    return [warning for warning in found if warning is not None]


def _size_warnings(network: Any) -> list[str]:
    """Say which part of the images the network does not look at."""
    rows, columns = getattr(network, "unseen", (0, 0))
    _, height, width = network.pretrained_cfg["input_size"]
    if rows == columns == 0:
        return []
    return [
        f"the network sees {width - columns}x{height - rows} pixels of its {width}x{height} images; the rest, at right "
        f"and bottom, is no whole patch; with data.image_size={max(height - rows, width - columns)} it sees all"
    ]


def _describe(loading: Loading) -> str:
    parts = [loading.source]
    if loading.container:
        parts.append(f"under {loading.container}")
    if loading.is_ema:
        parts.append("the moving average")
    if loading.other_kind_there:
        parts.append(
            "raw weights are there too" if loading.is_ema else "a moving average is there too (model.ema: true)"
        )
    if loading.num_loaded:
        parts.append(f"{loading.num_loaded} tensors loaded")
    for what, names in (
        ("renamed", loading.renamed),
        ("resized", loading.resized),
        ("left out", loading.left_out),
        ("new", loading.new_head),
    ):
        if names:
            parts.append(f"{len(names)} {what} ({_some(names)})")
    return ", ".join(parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
