"""A checkpoint's file as the objects it holds, without running anything that is written in it.

torch reads tensors and plain containers (`weights_only`). Whatever else a training script saved beside them (its
arguments, an optimiser's state, numpy's numbers) becomes a `Foreign` object: an inert stand-in that takes any arguments
and does nothing. No class and no function that a file names is ever imported or called.
"""

from __future__ import annotations

import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pwfn.errors import UserError, first_line

FIELD = "model.checkpoint"
INDEX_SUFFIX = ".index.json"
"""Of the file that says which shard holds which tensor, as Hugging Face's libraries write it."""
PREFERRED = ("model.safetensors", "pytorch_model.bin")
"""What timm and Hugging Face's libraries call the weights in a folder, the one that is taken first."""
CHECKPOINTS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
"""Suffixes by which a checkpoint is found in a folder."""
SAVE_INSTEAD = "save only network.state_dict()"
PICKLE = b"\x80"
"""First byte of a pickle of the protocols in use."""
DAMAGED = "it is damaged, or no checkpoint"

FOREIGN_NAMES = (
    "argparse.Namespace",
    "builtins.getattr",
    "collections.deque",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
)
"""What training scripts save beside weights: stand-ins for files before torch 1.6, whose names cannot be listed."""


class Foreign:
    """Stands for an object of a class that is not imported; whatever it was made of is dropped."""

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        """Take any state."""


def read_file(path: Path) -> object:
    """Return what a checkpoint holds; for shards, all their tensors by name.

    Raises:
        UserError: no such file, or one that is no checkpoint; the message says what it is instead.
    """
    path = find_checkpoint(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    start = _start_of(path)
    _refuse_other_formats(path, start)
    try:
        if _is_safetensors(start):
            return _not_ours(load_file(path), path)
        _refuse_archives(path, start)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats; what cannot be read is said below
            with torch.serialization.safe_globals([(Foreign, name) for name in _foreign_names(path)]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # on bytes that are no checkpoint the unpickler raises nearly anything
        is_pickle = start.startswith((b"PK", PICKLE))
        raise UserError(
            f"{FIELD}: {path} is not a readable checkpoint: {_reason(error) if is_pickle else DAMAGED}"
        ) from error


def find_checkpoint(path: Path) -> Path:
    """Return the file that a path names: itself, or the one checkpoint or index of a folder.

    Raises:
        UserError: it does not exist, or is a folder that holds none or several.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{FIELD}: {path} does not exist")
    files = [*path.glob(f"*{INDEX_SUFFIX}")] or [file for file in path.iterdir() if file.suffix in CHECKPOINTS]
    preferred = [file for name in PREFERRED for file in files if file.name == name]
    if preferred:
        return preferred[0]
    if len(files) != 1:
        found = ", ".join(sorted(file.name for file in files)[:5]) or "no checkpoint"
        raise UserError(f"{FIELD}: {path} is a folder that holds {found}; name one file")
    return files[0]


def checkpoint_files(path: Path) -> list[Path]:
    """List the files that a checkpoint consists of, an index before its shards."""
    path = find_checkpoint(path)
    return [path, *_shards(path)] if path.name.endswith(INDEX_SUFFIX) else [path]


def _shards(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text())["weight_map"].values()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{FIELD}: {index} is no index of shards: it has no weight_map") from error
    shards = [index.parent / name for name in sorted(set(names))]
    missing = [shard.name for shard in shards if not shard.is_file() or shard.parent != index.parent]
    if missing:
        raise UserError(f"{FIELD}: {index} names shards that are missing: {', '.join(missing[:5])}")
    return shards


def _read_shards(index: Path) -> dict[str, Tensor]:
    shards = _shards(index)
    weight_map = json.loads(index.read_text())["weight_map"]
    state: dict[str, Tensor] = {}
    for shard in shards:
        content = read_file(shard)
        if not isinstance(content, dict):
            raise UserError(f"{FIELD}: {shard} holds a {type(content).__name__}, not named tensors")
        state |= content
    lost = [name for name in weight_map if name not in state]
    if lost:
        raise UserError(f"{FIELD}: {index} promises tensors that no shard holds: {', '.join(lost[:5])}")
    return state


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise UserError(f"{FIELD}: {path} cannot be read: {error.strerror}") from error


def _is_safetensors(start: bytes) -> bool:
    """Whether a file begins with the length of a JSON object, and then with one."""
    return len(start) > 8 and start[8:9] == b"{"


def _refuse_other_formats(path: Path, start: bytes) -> None:
    text = start.lstrip().lower()
    what = None
    if not start:
        what = "is empty; copy or download it again"
    elif start.startswith(b"version https://git-lfs"):
        what = "is a pointer of git-lfs, not the file itself; fetch it with `git lfs pull`"
    elif text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        what = "is a web page, not a checkpoint; download the file that the page links to"
    elif start.startswith(b"\x89HDF"):
        what = "is an HDF5 file (Keras), not a state dict of torch"
    elif start.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("constants.pkl") for name in names):
            what = f"is a TorchScript file, a program with its weights; {SAVE_INSTEAD}"
        elif any(name.endswith(".npy") for name in names):
            what = f"is a NumPy archive, not a state dict of torch; load it with timm and {SAVE_INSTEAD}"
    if what is not None:
        raise UserError(f"{FIELD}: {path} {what}")


def _not_ours(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Refuse a file that `pwfn export` wrote: its tensors are packed into one."""
    if state.keys() == {"pwfn"}:
        plain = path.with_suffix("").with_suffix(".plain.safetensors").name
        raise UserError(
            f"{FIELD}: {path} is a compressed network of pwfn; unpack it: pwfn export {path} --safetensors {plain}"
        )
    return state


def _refuse_archives(path: Path, start: bytes) -> None:
    if start.startswith(b"\x1f\x8b") or tarfile.is_tarfile(path):
        raise UserError(f"{FIELD}: {path} is an archive; unpack it, and name the checkpoint that it holds")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not any(name.endswith("/data.pkl") for name in names):
            held = ", ".join(names[:3]) or "nothing"
            raise UserError(f"{FIELD}: {path} is a zip archive that torch did not write; it holds {held}; unpack it")


def _foreign_names(path: Path) -> list[str]:
    """Names in a pickle that torch would refuse; a fixed list where the file is of the old format."""
    with suppress(Exception):
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    return list(FOREIGN_NAMES)


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        # torch's own words advise to run whatever the file holds
        blocked = any(word in str(error) for word in ("blocked", "nsupported", "Can only", "Trying to"))
        unsafe = f"it holds objects that cannot be read safely; {SAVE_INSTEAD}"
        return unsafe if blocked else DAMAGED
    if isinstance(error, IndexError | KeyError | AttributeError | EOFError | struct.error | AssertionError):
        return DAMAGED  # of the unpickler's own stack
    return first_line(error)
