"""A network to a file's bytes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pwfn.errors import UserError
from pwfn.export.contents import Contents, Source, naming, read_contents
from pwfn.export.metadata import Architecture, ModelMetadata
from pwfn.export.state import RestDtype, encode_state
from pwfn.models.plain import build_plain
from pwfn.parameters import split_parameters

NAMES_SHOWN = 3
MOST_FUSED = 16
"""Most times as many numbers that a network may have before it is fused: MobileOne's have up to five times."""


def encode_network(
    network: nn.Module,
    metadata: ModelMetadata | Mapping[str, Any],
    *,
    rest_dtype: RestDtype = "float32",
    include_norm: bool = False,
    sigmas: Mapping[str, Tensor] | None = None,
) -> bytes:
    """Write a network as a file's bytes; the fixed set to the bit, whatever sharing it has.

    Args:
        network: with its final weights, on any device.
        metadata: of `describe_network`; a mapping has the same fields.
        rest_dtype: of the parameters outside the fixed set and of floating-point buffers; the narrow ones round them.
        include_norm: the norm layers belong to the fixed set.
        sigmas: of the posterior, by name of the fixed parameter, to keep the ensemble; None keeps the mean only.

    Raises:
        UserError: a parameter that is not float32, or a value that `rest_dtype` cannot hold.
    """
    fixed = split_parameters(network, include_norm=include_norm).fixable
    state = stored_state(network)
    rest = {name: tensor for name, tensor in state.items() if name not in fixed}
    return encode_state({name: state[name] for name in fixed}, rest, metadata, rest_dtype=rest_dtype, sigmas=sigmas)


def load(source: Source, device: str | torch.device = "cpu") -> nn.Module:
    """Build the network that a file holds, in evaluation mode; its weights are the trained ones to the bit.

    Takes torch, timm and what these bring along, nothing else; for a network of our own torch alone. `pretrained_cfg`,
    timm's record, says how images are prepared (`timm.data.resolve_model_data_config` reads it), and as `label_names`
    which class each score is for.

    Args:
        source: path, bytes, or a file opened in binary mode.
        device: where the network goes.

    Raises:
        UserError: the file is missing, unreadable, damaged, foreign or of an unknown version, names no architecture or
            one that its tensors do not fit; or there is no such device.
    """
    place = _device(device)
    contents = read_contents(source)
    with naming(source):
        return build_from(contents).to(place)


def build_from(contents: Contents) -> nn.Module:
    """Build the network of a file that was read, on the CPU; see `load`."""
    architecture = contents.metadata.architecture
    if architecture is None:
        raise UserError("the file names no architecture; read its tensors with pwfn.export.load_state")
    skeleton = _skeleton(replace(architecture, fused=False))
    if skeleton is not None and architecture.fused:
        _check_size(architecture.name, skeleton, contents)  # its names are known once it is fused, with real numbers
        skeleton = None
    if skeleton is not None:
        _check_names(architecture.name, skeleton, contents)  # a small file must not make us build a huge network
    network = None if skeleton is None else _filled(skeleton, contents.state)
    if network is None:
        network = _build(architecture)
        _check_names(architecture.name, network, contents)
        network.load_state_dict(_with_shared_names(network, contents.state))
    _set_record(network, contents.metadata)
    return network


def stored_state(network: nn.Module) -> dict[str, Tensor]:
    """Return what a file holds of a network: parameters, each once, and the buffers of its state dict."""
    parameters = dict(network.named_parameters())
    every_name = dict(network.named_parameters(remove_duplicate=False))
    buffers = {name: tensor for name, tensor in network.state_dict().items() if name not in every_name}
    return {name: parameter.detach() for name, parameter in parameters.items()} | buffers


def _build(architecture: Architecture) -> nn.Module:
    return build_plain(
        architecture.name,
        num_classes=architecture.num_classes,
        in_channels=architecture.in_channels,
        size=architecture.size,
        model_args=architecture.model_args,
        fused=architecture.fused,
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device}: {str(error).splitlines()[0]}") from error


def _skeleton(architecture: Architecture) -> nn.Module | None:
    """Build a network without memory; None where its architecture computes with real numbers while it is built."""
    try:
        with torch.device("meta"):
            return _build(architecture)
    except UserError as error:
        if "meta" in str(error):
            return None
        raise


def _filled(skeleton: nn.Module, state: Mapping[str, Tensor]) -> nn.Module | None:
    """Give a skeleton the file's tensors, which saves drawing random weights; None where it needs more than those.

    Some networks compute tensors of their own (masks, positions), and some share parameters between layers.
    """
    num_names = len(list(skeleton.named_parameters(remove_duplicate=False)))
    if num_names != len(list(skeleton.parameters())) or not state.keys() >= {
        name for name, _ in skeleton.named_buffers()
    }:
        return None
    skeleton.load_state_dict(state, assign=True)
    kept = [value for module in skeleton.modules() for value in vars(module).values()]
    return None if any(map(_is_hollow, kept)) else skeleton


def _is_hollow(value: Any) -> bool:
    """Whether an attribute holds a tensor without memory."""
    if isinstance(value, Mapping):
        return any(map(_is_hollow, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(_is_hollow, value))
    return isinstance(value, Tensor) and value.is_meta


def _check_size(architecture: str, network: nn.Module, contents: Contents) -> None:
    """Refuse a file that asks for a network much larger than fusing could have made what it holds of."""
    wanted = sum(tensor.numel() for tensor in stored_state(network).values())
    found = sum(tensor.numel() for tensor in contents.state.values())
    if wanted > MOST_FUSED * found:
        raise UserError(
            f"the tensors are not those of the architecture {architecture}: {found:,} numbers, and it has {wanted:,} "
            "before it is fused"
        )


def _check_names(architecture: str, network: nn.Module, contents: Contents) -> None:
    expected = stored_state(network)
    found = {name: list(tensor.shape) for name, tensor in contents.state.items()}
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {found[name]} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name] != list(tensor.shape)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "wrongly shaped": misshapen}
    problems = [f"{len(names)} {kind} ({', '.join(names[:NAMES_SHOWN])})" for kind, names in kinds.items() if names]
    if problems:
        raise UserError(f"the tensors are not those of the architecture {architecture}: {'; '.join(problems)}")


def _with_shared_names(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the further names of parameters that several layers share."""
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    every_name = network.named_parameters(remove_duplicate=False)
    return state | {name: state[first[id(parameter)]] for name, parameter in every_name}


def _set_record(network: Any, metadata: ModelMetadata) -> None:
    """Write into timm's record of the network what the file says of classes and images."""
    if metadata.class_names is not None:
        network.pretrained_cfg = {**network.pretrained_cfg, "label_names": metadata.class_names}
    found = metadata.preprocessing
    if found is not None:
        known = {"mean": found.mean, "std": found.std, "interpolation": found.interpolation}
        network.pretrained_cfg = {
            **network.pretrained_cfg,
            **known,
            "crop_pct": found.crop_fraction,
            "crop_mode": found.crop_mode,
        }
