"""What a trial would work on, as it was understood: the data and the float network, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from pwfn.config import TrialConfig
from pwfn.data.understood import data_lines, understood_data
from pwfn.models import check_has_weights, check_head_is_trained, describe_loading, preprocessing_of
from pwfn.recipe.descent import check_recipe
from pwfn.trial.names import check_names
from pwfn.trial.opening import network_for, open_data
from pwfn.trial.teacher import open_teacher
from pwfn.trial.understood_lines import Understood


def understand(config: TrialConfig) -> Understood:
    """Open the data and build the float network of a trial, and say what was understood.

    Raises:
        UserError: whatever keeps the trial from starting.
    """
    check_has_weights(config)
    source = open_data(config)
    network = network_for(config, config.model, source)
    check_head_is_trained(config, network)
    check_names(config, source, network)
    preprocessing = preprocessing_of(network)
    check_recipe(config.baseline, network, preprocessing, len(source.splits.train))
    open_teacher(config, source, network)
    data = understood_data(source, preprocessing)
    found = describe_loading(network, include_norm=config.include_norm)
    lines = [*data_lines(data), *_network_lines(config, found.lines())]
    return {"data": data, "network": found.to_json(), "lines": lines}


def _network_lines(config: TrialConfig, lines: Sequence[str]) -> list[tuple[str, str]]:
    """Split the network's lines into headings and sentences, and say what training will add."""
    split = [(heading, text) for heading, _, text in (line.partition(": ") for line in lines)]
    training = config.baseline
    if training.epochs:
        optimizer = f"with {training.opt or training.optimizer}"
        split.append(("trained", f"for {training.epochs} epochs {optimizer} before it is compressed"))
    if training.epochs and training.teacher is not None:
        teacher = training.teacher if isinstance(training.teacher, str) else training.teacher.name
        split.append(("teacher", f"{teacher}, with weight {training.distillation:g} in the loss"))
    return split
