"""The network that a float network learns from: opened for the student's classes and images, or refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pwfn.config import ModelConfig, TrialConfig
from pwfn.data import Source
from pwfn.data.classes import other_names
from pwfn.data.contract import Preprocessing
from pwfn.errors import UserError, first_line
from pwfn.export import load
from pwfn.models import build_network, preprocessing_of
from pwfn.paths import expand_path
from pwfn.recipe.loss import Teacher
from pwfn.trial.names import check_names

FIELD = "baseline.teacher"


def open_teacher(config: TrialConfig, source: Source, student: nn.Module) -> Teacher | None:
    """Open the network that `baseline.teacher` names, on the CPU; None if there is none, or nothing is trained.

    Raises:
        UserError: it cannot be read, tells other classes apart, or does not take the student's images.
    """
    wanted = config.baseline.teacher
    if wanted is None or config.baseline.epochs == 0:
        return None
    given = preprocessing_of(student)
    try:
        if isinstance(wanted, str):
            network = _from_file(wanted, source, given)
        else:
            network = _from_model(wanted, config, source, given)
    except UserError as error:
        raise UserError(f"{FIELD}: {str(error).removeprefix(f'{FIELD}: ')}") from error
    return Teacher(network, preprocessing_of(network), given)


def _from_model(wanted: ModelConfig, config: TrialConfig, source: Source, given: Preprocessing) -> nn.Module:
    channels, *size = given.shape
    network = build_network(wanted, num_classes=source.num_classes, in_channels=channels, image_size=(size[0], size[1]))
    check_names(config.model_copy(update={"model": wanted}), source, network)
    return network


def _from_file(wanted: str, source: Source, given: Preprocessing) -> nn.Module:
    try:
        network = load(expand_path(wanted, FIELD))
    except UserError as error:
        raise UserError(
            f"{error}; a text is the path of an exported file, any other network is {{name: NAME, checkpoint: FILE}}"
        ) from error
    record: Any = network.pretrained_cfg
    names = record.get("label_names")
    if network.num_classes != source.num_classes:
        raise UserError(f"{wanted} tells {network.num_classes} classes apart, but the data has {source.num_classes}")
    difference = None if names is None else other_names(names, source.class_names)
    if difference is not None:
        raise UserError(f"the classes of {wanted} and of the data differ: {difference}; see data.class_order")
    _check_takes(network, wanted, given)
    return network


def _check_takes(network: nn.Module, wanted: str, given: Preprocessing) -> None:
    """Pass one black image of the student's size through; only that says whether the network takes it."""
    channels, height, width = given.shape
    own = preprocessing_of(network).shape
    try:
        if own[0] != channels:
            raise ValueError(f"{own[0]} channels")
        with torch.inference_mode():
            network(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UserError(
            f"{wanted} is made for {own[2]}x{own[1]} images of {own[0]} channels and cannot take {width}x{height} ones "
            f"of {channels} channels: {first_line(error)}"
        ) from error
