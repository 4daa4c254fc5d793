"""Which of a checkpoint's entries are the network's weights, and under which names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pwfn.errors import UserError
from pwfn.models.reading import FIELD, SAVE_INSTEAD, Foreign

RAW_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "module", "weights", "params")
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "ema_model", "params_ema", "teacher")
"""Keys under which training scripts keep weights, and their exponential moving average; the first that is there."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into names, at any place."""
PARALLEL = ("module.",)
"""What DataParallel and averaged models put before every name."""
OWNERS = ("model.", "net.", "network.", "backbone.", "encoder.", "student.", "teacher.", "ema_model.")
"""What a training script's own module puts before every name of the network in it."""
BOOKKEEPING = ("total_ops", "total_params", "n_averaged", "initted", "step")
"""Last names of what is no weight: counts of thop, of torch's averaged models and of EMA packages."""
MAX_DEPTH = 3
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Taken:
    """The weights that were chosen from a checkpoint."""

    state: dict[str, Tensor]
    container: str
    """The keys that lead to them, such as `state_dict`; empty where the file holds nothing else."""
    is_ema: bool
    has_other: bool
    """Whether the file also holds the raw weights of an average, or the average of raw ones."""
    dropped: tuple[str, ...] = ()
    """Bookkeeping that was left out."""


def choose_state(content: object, path: Path, *, ema: bool) -> Taken:
    """Find the weights in what a file holds: the raw ones, or their exponential moving average.

    Raises:
        UserError: there are none, or no average where one is asked for.
    """
    keys, found, is_ema, has_other = _descend(content, path, ema=ema)
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    dropped = [name for name in tensors if name.rpartition(".")[2] in BOOKKEEPING and tensors[name].numel() <= 1]
    other = [str(name) for name in found if str(name) not in tensors]
    if other or len(dropped) == len(tensors):
        what = f"entries that are no tensors ({some(other)})" if other else "no tensors"
        known = f"a state dict, or one under {', '.join((*RAW_KEYS, *EMA_KEYS))}"
        raise UserError(f"{FIELD}: {path} holds {what}; expected {known}")
    kept = {_unwrapped(name): tensor for name, tensor in tensors.items() if name not in dropped}
    return Taken(strip_prefixes(kept, PARALLEL), ".".join(keys), is_ema, has_other, tuple(dropped))


def strip_prefixes(
    state: Mapping[str, Tensor], prefixes: Collection[str], expected: Collection[str] = ()
) -> dict[str, Tensor]:
    """Strip prefixes that all names carry, as often as there is one; not one that all expected names carry too."""
    found = dict(state)
    while found:
        carried = [prefix for prefix in prefixes if all(name.startswith(prefix) for name in found)]
        carried = [p for p in carried if not expected or not all(name.startswith(p) for name in expected)]
        if not carried:
            return found
        found = {name.removeprefix(carried[0]): tensor for name, tensor in found.items()}
    return found


def prefix_of_all(state: Collection[str], expected: Collection[str]) -> str | None:
    """Find the one prefix under which every expected name lies; None where there is none, or several.

    A training script's module may hold more than the network: a loss with weights of its own, a projection.
    """
    first = next(iter(expected))
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    whole = [prefix for prefix in prefixes if all(f"{prefix}{name}" in state for name in expected)]
    return whole[0] if len(whole) == 1 else None


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def some(names: list[str]) -> str:
    """Name the first of them."""
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def _descend(content: object, path: Path, *, ema: bool) -> tuple[list[str], Mapping[str, object], bool, bool]:
    keys: list[str] = []
    is_ema = has_other = False
    for _ in range(MAX_DEPTH):
        if isinstance(content, Foreign):
            raise UserError(
                f"{FIELD}: {path} holds a pickled object, not a state dict of named tensors; {SAVE_INSTEAD}"
            )
        if not isinstance(content, Mapping):
            raise UserError(f"{FIELD}: {path} holds a {type(content).__name__}, not a state dict of named tensors")
        raw, average = _first(content, RAW_KEYS), _first(content, EMA_KEYS)
        if raw is None and average is None:
            raw = _only_state(content)
        if raw is None and average is None:
            break
        key = (average or raw) if ema else (raw or average)
        assert key is not None
        if key == average:
            is_ema = True
        has_other = has_other or (raw is not None and average is not None)
        keys.append(key)
        content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"{FIELD}: {path} holds a pickled network under {'.'.join(keys)}; {SAVE_INSTEAD}")
    if ema and not is_ema:
        raise UserError(f"{FIELD}: {path} holds no moving average (model.ema: true looks for {', '.join(EMA_KEYS)})")
    return keys, content, is_ema, has_other


def _only_state(content: Mapping[str, object]) -> str | None:
    """The key of the only entry that maps names to tensors, whatever it is called."""
    found = [key for key, value in content.items() if isinstance(value, Mapping) and value and _are_named(value)]
    return found[0] if len(found) == 1 else None


def _are_named(entries: Mapping[Any, object]) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in entries.items())


def _first(content: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    """The first key under which there is a mapping or an object, not a tensor or a number."""
    return next((key for key in keys if isinstance(content.get(key), Mapping | Foreign)), None)
