"""A network to a file's bytes, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.export.codec import CodedTensors, encode
from pwfn.export.container import FORMAT_VERSION, PREFIX, Contents, Description, Layer, pack, unpack
from pwfn.export.metadata import Architecture, ModelMetadata
from pwfn.models import build_network
from pwfn.parameters import split_parameters

RestDtype = Literal["float32", "float16", "bfloat16"]
SIGMA_PREFIX = f"{PREFIX}sigma."
NAMES_SHOWN = 3


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


def encode_state(
    fixed: Mapping[str, Tensor],
    rest: Mapping[str, Tensor],
    metadata: ModelMetadata | Mapping[str, Any],
    *,
    rest_dtype: RestDtype = "float32",
    sigmas: Mapping[str, Tensor] | None = None,
) -> bytes:
    """Write float32 tensors to be coded, and others that are stored as they are; see `encode_network`.

    Raises:
        UserError: also a name that is reserved, and a type that safetensors does not have.
    """
    for name in (*fixed, *rest):
        if name.startswith(PREFIX):
            raise UserError(
                f"tensor {name}: names that begin with {PREFIX} are reserved; is the file exported already?"
            )
    sigmas = {SIGMA_PREFIX + name: sigma for name, sigma in (sigmas or {}).items()}
    layers = {**fixed, **sigmas}
    coded = encode({name: tensor.detach().cpu().numpy() for name, tensor in layers.items()})
    untouched = {name: tensor for name, tensor in layers.items() if name not in coded.table_of}
    untouched |= {name: _narrow(name, tensor, getattr(torch, rest_dtype)) for name, tensor in rest.items()}
    description = Description(
        format_version=FORMAT_VERSION,
        layers=_layers(fixed, coded),
        sigmas=_layers(sigmas, coded),
        model=metadata if isinstance(metadata, ModelMetadata) else ModelMetadata.model_validate(metadata),
    )
    return pack(Contents(description, coded, untouched))


def decode_state(contents: Contents) -> dict[str, Tensor]:
    """Return all tensors by name: the fixed set as it was, the rest widened to float32 where it is narrower.

    Raises:
        UserError: the stream of indices is not valid.
    """
    layers = contents.decode()
    rest = {name: tensor for name, tensor in contents.untouched.items() if name not in layers}
    weights = {name: tensor for name, tensor in layers.items() if not name.startswith(SIGMA_PREFIX)}
    narrow = (torch.float16, torch.bfloat16)
    return weights | {name: tensor.float() if tensor.dtype in narrow else tensor for name, tensor in rest.items()}


def decode_sigmas(contents: Contents) -> dict[str, Tensor]:
    """Return the posterior's sigmas by the name of their weights; none where the file keeps none.

    Raises:
        UserError: the stream of indices is not valid.
    """
    layers = contents.decode()
    return {layer.name.removeprefix(SIGMA_PREFIX): layers[layer.name] for layer in contents.description.sigmas}


def read_contents(path: str | Path) -> Contents:
    """Read a file without decoding its weights.

    Raises:
        UserError: it is missing, unreadable, damaged, foreign or of an unknown version; names the path.
    """
    with naming(path):
        try:
            return unpack(Path(path).read_bytes())
        except OSError as error:
            raise UserError(error.strerror or str(error)) from error


def load(path: str | Path) -> nn.Module:
    """Build the network that a file holds, in evaluation mode on the CPU; its weights are the trained ones to the bit.

    Raises:
        UserError: as `read_contents`; or the file names no architecture, or one that its tensors do not fit.
    """
    contents = read_contents(path)
    with naming(path):
        return build_from(contents)


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Return a file's tensors by name without building a network; see `decode_state`."""
    contents = read_contents(path)
    with naming(path):
        return decode_state(contents)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put the file's path in front of a user's error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def build_from(contents: Contents) -> nn.Module:
    """Build the network of a file that was read; see `load`."""
    metadata = contents.description.model
    architecture = metadata.architecture
    if architecture is None:
        raise UserError("the file names no architecture; read its tensors with pwfn.export.load_state")
    _check_before_building(architecture, contents)
    network = _build(architecture)
    _check_names(architecture.name, network, contents)
    network.load_state_dict(_with_shared_names(network, decode_state(contents)))
    _set_preprocessing(network, metadata)
    return network


def stored_state(network: nn.Module) -> dict[str, Tensor]:
    """Return what a file holds of a network: parameters, each once, and the buffers of its state dict."""
    parameters = dict(network.named_parameters())
    every_name = dict(network.named_parameters(remove_duplicate=False))
    buffers = {name: tensor for name, tensor in network.state_dict().items() if name not in every_name}
    return {name: parameter.detach() for name, parameter in parameters.items()} | buffers


def _layers(tensors: Mapping[str, Tensor], coded: CodedTensors) -> tuple[Layer, ...]:
    return tuple(
        Layer(name=name, shape=list(tensor.shape), table=coded.table_of.get(name)) for name, tensor in tensors.items()
    )


def _narrow(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    narrow = tensor.to(dtype)
    if not torch.equal(narrow.isfinite(), tensor.isfinite()):
        raise UserError(f"tensor {name} has values beyond the range of {dtype}; use --rest-dtype bfloat16 or float32")
    return narrow


def _build(architecture: Architecture) -> nn.Module:
    return build_network(
        ModelConfig(name=architecture.name, kwargs=architecture.model_args, fuse=architecture.fused),
        num_classes=architecture.num_classes,
        in_channels=architecture.in_channels,
        image_size=architecture.image_size,
    )


def _check_before_building(architecture: Architecture, contents: Contents) -> None:
    """Compare names and shapes with a skeleton without memory: a small file must not make us build a huge network."""
    try:
        with torch.device("meta"):
            skeleton = _build(architecture)
    except UserError as error:
        if "meta" in str(error):
            return  # no fault of the file: this architecture computes with real numbers while it is built
        raise
    _check_names(architecture.name, skeleton, contents)


def _check_names(architecture: str, network: nn.Module, contents: Contents) -> None:
    expected = stored_state(network)
    found = {name: list(tensor.shape) for name, tensor in contents.untouched.items() if not name.startswith(PREFIX)}
    found |= {layer.name: layer.shape for layer in contents.description.layers}
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


def _set_preprocessing(network: Any, metadata: ModelMetadata) -> None:
    found = metadata.preprocessing
    if found is not None:
        known = {"mean": found.mean, "std": found.std, "interpolation": found.interpolation}
        network.pretrained_cfg = {
            **network.pretrained_cfg,
            **known,
            "crop_pct": found.crop_fraction,
            "crop_mode": found.crop_mode,
        }
