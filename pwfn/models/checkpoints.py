"""Weights from a local file into a network, or one line that says why they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pwfn.errors import UserError
from pwfn.models.containers import OWNERS, Taken, choose_state, prefix_of_all, some, strip_prefixes
from pwfn.models.reading import FIELD, read_file
from pwfn.models.understood import Loading

Rebuild = Callable[[Mapping[str, Tensor], int, int], nn.Module]
"""Builds the network anew through timm's own filters: from a state dict, for its number of classes and channels."""

COUNTER = "num_batches_tracked"
"""BatchNorm's step counter, which old files lack and nothing uses."""
STATISTICS = (".running_mean", ".running_var")
"""Last names of what BatchNorm estimates."""
MASKS = ("mask", "attn_mask", "attention_mask", "causal_mask")
"""Last names of tables that are added to scores, where minus infinity means: do not look."""
HEADS = ("head", "fc", "classifier", "linear", "logits")
"""What classifiers are called, in timm and torchvision."""


def read_state(path: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """Read a file's weights by name, from whatever container, `module.` and `_orig_mod.` stripped.

    Raises:
        UserError: no such file, or one that holds no state dict.
    """
    return choose_state(read_file(path), path, ema=ema).state


def load_checkpoint(
    network: nn.Module, path: Path, rebuild: Rebuild, *, ema: bool = False, new_head: bool = False
) -> Loading:
    """Load a checkpoint into a network, in place; every weight must be there and fit.

    Where the names or shapes are not the network's, timm's own filter for this architecture converts them: names of
    other libraries, position embeddings of another size.

    Args:
        network: to load into.
        path: see `pwfn.models.reading`.
        rebuild: for that conversion.
        ema: take the moving average.
        new_head: keep the network's own classifier where the file's has another number of classes.

    Raises:
        UserError: no such file, not a checkpoint, damaged weights, another number of classes or channels, or another
            architecture; the last counts and names missing, unexpected and wrongly shaped keys.
    """
    taken = choose_state(read_file(path), path, ema=ema)
    expected = network.state_dict()
    state = strip_prefixes(taken.state, OWNERS, expected)
    prefix = prefix_of_all(state, [name for name in expected if COUNTER not in name])
    if prefix is not None:
        inner = {f"{prefix}{name}": name for name in expected}
        taken = replace(taken, dropped=(*taken.dropped, *(name for name in state if name not in inner)))
        state = {inner[name]: tensor for name, tensor in state.items() if name in inner}
    check_weights(state, str(path))
    fitting = state if _fits(network, expected, state) else _converted(network, expected, state, rebuild)
    if fitting is None:
        _check_classes(network, expected, state, path)
        _check_channels(network, expected, state, path)
        _check_keys(expected, state, path)
        raise UserError(f"{FIELD}: {path} does not fit this network, though its names and shapes do")
    head = [name for name, _, _ in _differing_sizes(network, "classifier", 0, expected, fitting)]
    if not new_head:
        _check_classes(network, expected, fitting, path)
    _check_channels(network, expected, fitting, path)
    heads = tuple(name for name in expected if head and _is_head(network, name) and name in fitting)
    kept = {name: tensor for name, tensor in fitting.items() if name not in heads}
    network.load_state_dict(kept, strict=False)  # only step counters and a new head can be missing
    return _account(path, taken, state, kept, heads)


def check_weights(state: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that no network can compute with, naming the first.

    Raises:
        UserError: NaN or infinity, a negative variance, integers or float8 where weights are, or nothing but zeros.
    """
    weights = {name: tensor for name, tensor in state.items() if tensor.ndim >= 2}
    for name, tensor in state.items():
        if tensor.layout != torch.strided:
            raise UserError(f"{where}: tensor {name} is sparse; save it as a dense one")
        if tensor.is_meta:
            raise UserError(f"{where}: tensor {name} has a shape but no numbers (device meta); save the weights")
        if tensor.is_floating_point() or name.endswith((".weight", ".bias", *STATISTICS)) or name in weights:
            _check_tensor(name, tensor, where)
    if weights and not any(bool(tensor.any()) for tensor in weights.values()):
        raise UserError(f"{where}: all weights are zero, {next(iter(weights))} first; the network was never trained")


def _check_tensor(name: str, tensor: Tensor, where: str) -> None:
    if (tensor.is_floating_point() and tensor.itemsize == 1) or tensor.dtype in (torch.int8, torch.uint8):
        raise UserError(f"{where}: tensor {name} is {tensor.dtype} without its scales; save the network in float32")
    if not tensor.is_floating_point():
        if name.endswith((".weight", *STATISTICS)):
            raise UserError(f"{where}: tensor {name} is {tensor.dtype}, which is no type of weights")
        return
    if name.rpartition(".")[2] in MASKS and not bool(tensor.isnan().any()):
        return
    if not bool(tensor.isfinite().all()):
        number = int((~tensor.isfinite()).sum())
        raise UserError(f"{where}: {number} of {tensor.numel()} numbers of tensor {name} are NaN or infinite")
    if name.endswith(".running_var") and bool((tensor < 0).any()):
        raise UserError(f"{where}: tensor {name} has negative numbers, but is a variance")


def _fits(network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Whether names and shapes are the network's, up to the classifier's number of classes."""
    if {name for name in expected if COUNTER not in name} - set(state) or set(state) - set(expected):
        return False
    other = {name for name in state if state[name].shape != expected[name].shape}
    return all(_is_head(network, name) for name in other)


def _converted(
    network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], rebuild: Rebuild
) -> dict[str, Tensor] | None:
    """Let timm convert a state dict to the network's names and sizes; None where it cannot."""
    record: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    channels = int(getattr(network, "in_chans", None) or record["input_size"][0])
    for num_classes in _numbers_of_classes(network, state):
        found = _rebuilt(rebuild, state, num_classes, channels)
        if found is not None and found.keys() == expected.keys() and _fits(network, expected, found):
            return found if _all_came_from_the_file(rebuild, state, num_classes, channels, found) else None
    return None


def _rebuilt(
    rebuild: Rebuild, state: Mapping[str, Tensor], num_classes: int, channels: int
) -> dict[str, Tensor] | None:
    """Return the state of the network that timm makes of a file's; None where it refuses. The same draws each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            return dict(rebuild(dict(state), num_classes, channels).state_dict())
        except Exception:  # timm's filters index and reshape what they expect
            return None


def _all_came_from_the_file(
    rebuild: Rebuild, state: Mapping[str, Tensor], num_classes: int, channels: int, found: Mapping[str, Tensor]
) -> bool:
    """Whether every number changes when the file's do, as timm loads some networks without looking what is missing."""
    moved = {name: 1.5 * tensor + 0.25 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    other = _rebuilt(rebuild, moved, num_classes, channels)
    return other is not None and not any(
        torch.equal(tensor, other[name]) for name, tensor in found.items() if tensor.is_floating_point()
    )


def _numbers_of_classes(network: nn.Module, state: Mapping[str, Tensor]) -> list[int]:
    """How many classes the file may tell apart: sizes of what looks like its classifier, and the network's own."""
    heads = [tensor.shape[0] for name, tensor in state.items() if _names_head(name) and tensor.ndim in (1, 2, 4)]
    return list(dict.fromkeys([*reversed(heads), int(network.num_classes)]))[:4]  # type: ignore[arg-type]


def _names_head(name: str) -> bool:
    return name.endswith((".weight", ".bias")) and any(part in HEADS for part in name.split("."))


def _is_head(network: nn.Module, name: str) -> bool:
    return any(name.startswith(f"{layer}.") for layer in _layers_of(network, "classifier"))


def _layers_of(network: nn.Module, role: str) -> tuple[str, ...]:
    record: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    layers = record.get(role) or ()
    return (layers,) if isinstance(layers, str) else tuple(layers)


def _account(
    path: Path, taken: Taken, state: Mapping[str, Tensor], kept: Mapping[str, Tensor], heads: tuple[str, ...]
) -> Loading:
    renamed = tuple(name for name in kept if name not in state)
    unused = len(state) - len(kept) - len(heads)
    gone = [name for name in state if name not in kept and name not in heads]
    return Loading(
        source=str(path),
        container=taken.container,
        is_ema=taken.is_ema,
        other_kind_there=taken.has_other,
        num_loaded=len(kept),
        renamed=renamed,
        resized=tuple(name for name in kept if name in state and state[name].shape != kept[name].shape),
        left_out=(*taken.dropped, *(gone[: max(unused, 0)] if renamed else gone)),
        new_head=heads,
    )


def _check_classes(network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Say it plainly where only the number of classes differs: the commonest way for a checkpoint not to fit."""
    for weight, found, wanted in _differing_sizes(network, "classifier", 0, expected, state):
        raise UserError(
            f"{FIELD}: {path} tells {found} classes apart ({weight}), but the data has {wanted}; "
            "model.new_head: true replaces the classifier, which then has to be trained"
        )


def _check_channels(
    network: nn.Module, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path
) -> None:
    for weight, found, wanted in _differing_sizes(network, "first_conv", 1, expected, state):
        raise UserError(f"{FIELD}: {path} takes images of {found} channels ({weight}), but the data has {wanted}")


def _differing_sizes(
    network: nn.Module, role: str, axis: int, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Iterator[tuple[str, int, int]]:
    """Yield weights of the layers that timm records under a role which differ along one axis only, and its sizes."""
    for layer in _layers_of(network, role):
        weight = f"{layer}.weight"
        if weight in expected and weight in state:
            found, wanted = list(state[weight].shape), list(expected[weight].shape)
            differing = [i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b]
            if len(found) == len(wanted) and differing == [axis]:
                yield weight, found[axis], wanted[axis]


def _check_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    missing = [name for name in expected if name not in state and not name.endswith(COUNTER)]
    unexpected = [name for name in state if name not in expected]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "wrongly shaped": misshapen}
    problems = [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names]
    if problems:
        raise UserError(
            f"{FIELD}: {path} belongs to another architecture, of {len(expected)} keys: {'; '.join(problems)}"
        )
