"""What a trial would work on, as it was understood: the data and the float network, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pwfn.config import TrialConfig
from pwfn.data.understood import data_lines, understood_data
from pwfn.models import preprocessing_of
from pwfn.parameters import split_parameters
from pwfn.trial.names import check_names
from pwfn.trial.run import network_for, open_data

Understood = dict[str, Any]
"""JSON: `data` and `network` as records, and `lines` of a heading and a sentence each."""
LOW_COVERAGE = 0.95
LAYERS_SHOWN = 5


def understand(config: TrialConfig) -> Understood:
    """Open the data and build the float network of a trial, and say what was understood.

    Raises:
        UserError: whatever keeps the trial from starting.
    """
    source = open_data(config)
    network = network_for(config, config.model, source)
    check_names(config, source, network)
    data = understood_data(source, preprocessing_of(network))
    found = _network(config, network)
    return {"data": data, "network": found, "lines": [*data_lines(data), *_network_lines(found)]}


def format_understood(found: Mapping[str, Any]) -> str:
    """Write the lines of `understand` below each other, their headings in a column."""
    width = max(len(heading) for heading, _ in found["lines"])
    return "\n".join(f"{heading:<{width}}  {text}" for heading, text in found["lines"])


def _network(config: TrialConfig, network: nn.Module) -> dict[str, Any]:
    sets = split_parameters(network, include_norm=config.include_norm)
    weights = "random"
    if config.model.checkpoint is not None:
        weights = f"checkpoint {config.model.checkpoint}"
    elif config.model.pretrained:
        weights = "timm's pretrained"
    if config.baseline.epochs:
        weights += f", then trained for {config.baseline.epochs} epochs"
    layers = [name for name, parameter in sets.rest.items() if parameter.ndim > 1]
    return {"name": config.model.name, "weights": weights, "coverage": sets.coverage, "left_out": layers}


def _network_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    left_out = found["left_out"]
    some = ", ".join([*left_out[:LAYERS_SHOWN], *(["..."] if len(left_out) > LAYERS_SHOWN else [])])
    warning = "" if found["coverage"] >= LOW_COVERAGE else " (few: the count of values says little of this network)"
    return [
        ("network", f"{found['name']}, weights: {found['weights']}"),
        (
            "shared",
            f"{found['coverage']:.1%} of the parameters share values{warning}; not: {some or 'norm layers only'}",
        ),
    ]
