"""Weights from a local file into a network, or one line that says why they do not fit."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pwfn.errors import UserError, first_line

PICKLE_SUFFIXES = (".pth", ".pt", ".th")
NESTED_UNDER = ("state_dict", "model")
FIELD = "model.checkpoint"
NAMES_SHOWN = 3


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Load a state dict into a network, in place; every weight must be there and fit.

    Accepts `.safetensors`, and `.pth`, `.pt`, `.th` read as tensors only (no pickled code runs), also nested under
    `state_dict` or `model`. A `module.` prefix is stripped, BatchNorm's step counters may be missing.

    Raises:
        UserError: no such file, not a checkpoint, another number of classes or channels, or another architecture; the
            last counts and names missing, unexpected and wrongly shaped keys.
    """
    state = read_state(path)
    expected = network.state_dict()
    _check_classes(network, expected, state, path)
    _check_channels(network, expected, state, path)
    _check_keys(expected, state, path)
    network.load_state_dict(state, strict=False)  # only step counters can be missing


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by name, `module.` stripped."""
    if not path.is_file():
        raise UserError(f"{FIELD}: {path} does not exist")
    content = _read_file(path)
    for key in NESTED_UNDER:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"{FIELD}: {path} holds a {type(content).__name__}, not a state dict of named tensors")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    other = [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]
    if other or not state:
        found = f"entries that are no tensors ({_some(other)})" if other else "no tensors"
        raise UserError(
            f"{FIELD}: {path} holds {found}; expected a state dict, or one under {' or '.join(NESTED_UNDER)}"
        )
    return state


def _read_file(path: Path) -> object:
    if path.suffix != ".safetensors" and path.suffix not in PICKLE_SUFFIXES:
        allowed = ", ".join((".safetensors", *PICKLE_SUFFIXES))
        raise UserError(f"{FIELD}: {path} has the suffix {path.suffix!r}; allowed are {allowed}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats; what cannot be read is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            hint = "it holds Python objects beside tensors; save only network.state_dict()"
            raise UserError(f"{FIELD}: {path} cannot be read safely: {hint}") from error
        # torch's own words advise to run whatever the file holds
        raise UserError(f"{FIELD}: {path} is not a readable checkpoint: it holds no tensors, or more") from error
    except Exception as error:  # on bytes that are no checkpoint the unpickler raises nearly anything
        raise UserError(f"{FIELD}: {path} is not a readable checkpoint: {first_line(error)}") from error


def _check_classes(network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Say it plainly where only the number of classes differs: the commonest way for a checkpoint not to fit."""
    for weight, found, wanted in _differing_sizes(network, "classifier", 0, expected, state):
        raise UserError(f"{FIELD}: {path} tells {found} classes apart ({weight}), but the data has {wanted}")


def _check_channels(
    network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path
) -> None:
    for weight, found, wanted in _differing_sizes(network, "first_conv", 1, expected, state):
        raise UserError(f"{FIELD}: {path} takes images of {found} channels ({weight}), but the data has {wanted}")


def _differing_sizes(
    network: nn.Module, role: str, axis: int, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Iterator[tuple[str, int, int]]:
    """Yield weights of the layers that timm records under a role which differ along one axis only, and its sizes."""
    layers = getattr(network, "pretrained_cfg", {}).get(role) or ()
    for layer in (layers,) if isinstance(layers, str) else layers:
        weight = f"{layer}.weight"
        if weight in expected and weight in state:
            found, wanted = list(state[weight].shape), list(expected[weight].shape)
            differing = [i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b]
            if len(found) == len(wanted) and differing == [axis]:
                yield weight, found[axis], wanted[axis]


def _check_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "wrongly shaped": misshapen}
    problems = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if problems:
        raise UserError(
            f"{FIELD}: {path} belongs to another architecture, of {len(expected)} keys: {'; '.join(problems)}"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
