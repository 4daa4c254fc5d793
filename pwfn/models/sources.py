"""Where a network's name comes from (timm's registry, a hub, a folder), and pretrained weights that are to be had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import timm
import torch
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from timm.models import get_arch_pretrained_cfgs, is_model, parse_model_name, split_model_name_tag

from pwfn.errors import UserError, first_line, nearest_names
from pwfn.models import registered  # noqa: F401  (ours)
from pwfn.models.reading import CHECKPOINTS
from pwfn.paths import expand_path
from pwfn.reach import answers

WEIGHT_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository of a hub, in its order."""
WAY_OUT = "fetch them on a machine with network access, or give model.checkpoint"


def on_this_machine(name: str, *, weights: bool) -> str:
    """Return a name that timm can build here: a folder takes the place of a hub's repository, and is written in full.

    Raises:
        UserError: a name that is neither timm's nor ours, nor a source of its own; says what is like it, or what the
            folder lacks.
    """
    try:
        source, model = parse_model_name(name)
    except ValueError as error:
        if Path(name).suffix in CHECKPOINTS or Path(name).is_file():
            raise UserError(
                f"model.name: {name!r} is a file; it goes to model.checkpoint, and model.name is its architecture"
            ) from error
        raise UserError(f"model.name: {first_line(error)}") from error
    if source is None:
        _check_architecture(model, name)
        return name
    folder = hub_folder(model, weights=weights) if source == "hf-hub" else folder_of(name)
    folder_architecture(folder)
    return f"local-dir:{folder}"


def folder_of(name: str) -> Path:
    """Return the folder that `local-dir:FOLDER` names; `${NAME}` and `~` are replaced."""
    return expand_path(name.partition(":")[2], "model.name")


def _check_architecture(model: str, name: str) -> None:
    architecture, tag = split_model_name_tag(model)
    if not is_model(architecture):
        known = timm.list_models()
        raise UserError(f"model.name: {name!r} is neither timm's nor ours{nearest_names(architecture, known)}")
    tags = [full.partition(".")[2] for full in get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        raise UserError(f"model.name: {architecture} has no weights {tag!r}; known are {', '.join(filter(None, tags))}")


def folder_architecture(folder: Path) -> str:
    """Return the architecture that a folder of timm's names.

    Raises:
        UserError: no folder, no readable config.json, an architecture that timm does not know.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"model.name: {folder} has no config.json; timm's save_for_hf writes such a folder")
    try:
        architecture = json.loads(config.read_text())["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"model.name: {config} names no architecture of timm's") from error
    if not is_model(architecture):
        raise UserError(f"model.name: {config} names the architecture {architecture!r}, which timm does not know")
    return str(architecture)


def folder_has_fixed_size(folder: Path) -> bool:
    """Whether the network of a folder of timm's is built for one size of images, by its config.json."""
    config = json.loads((folder / "config.json").read_text())
    arguments = config.get("model_args", {})
    flexible = arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False
    return bool(config.get("pretrained_cfg", config).get("fixed_input_size")) and not flexible


def reachable_settings(name: str) -> dict[str, Any]:
    """Return what `timm.create_model` needs to load weights of timm's registry: nothing, or the file that is cached.

    Asks the server once, with little patience, before the libraries do so many times.

    Raises:
        UserError: the weights are neither cached nor to be had.
    """
    record = timm.get_pretrained_cfg(name)
    repository = getattr(record, "hf_hub_id", None)
    if not repository:
        url = getattr(record, "url", None)
        if url and not _is_cached(url) and not answers(url):
            raise UserError(f"model.pretrained: the weights of {name} cannot be had ({url} is out of reach); {WAY_OUT}")
        return {}
    if _hub_answers():
        return {}
    named = record.hf_hub_filename
    found = [file for each in ((named,) if named else WEIGHT_FILES) if (file := _cached(repository, each)) is not None]
    if not found:
        raise UserError(f"model.pretrained: the weights of {name} cannot be had ({_why()}); {WAY_OUT}")
    overlay = {"file": found[0], "hf_hub_id": None, "url": None, "source": None}
    return {"pretrained_cfg_overlay": overlay | ({"custom_load": True} if record.custom_load else {})}


def hub_folder(repository: str, *, weights: bool) -> Path:
    """Return the folder of a hub's repository on this machine: its config.json, and its weights where asked for.

    Raises:
        UserError: it is neither cached nor to be had.
    """
    repository, _, revision = repository.partition("@")
    if _hub_answers():
        for patterns in [[file] for file in WEIGHT_FILES] if weights else [[]]:
            try:
                folder = Path(
                    snapshot_download(repository, revision=revision or None, allow_patterns=["config.json", *patterns])
                )
            except (OSError, ValueError) as error:
                raise UserError(f"model.name: hf-hub:{repository} cannot be had ({first_line(error)})") from error
            if not weights or (folder / patterns[0]).is_file():
                return folder
        raise UserError(f"model.name: hf-hub:{repository} has no weights: none of {', '.join(WEIGHT_FILES)}")
    config = _cached(repository, "config.json", revision)
    if config is None or (weights and all(_cached(repository, file, revision) is None for file in WEIGHT_FILES)):
        field = "model.pretrained: the weights of" if weights else "model.name:"
        raise UserError(f"{field} hf-hub:{repository} cannot be had ({_why()}); {WAY_OUT}")
    return Path(config).parent


def _hub_answers() -> bool:
    return not constants.HF_HUB_OFFLINE and answers(constants.ENDPOINT)


def _why() -> str:
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} is out of reach"


def _cached(repository: str, file: str, revision: str | None = None) -> str | None:
    path = try_to_load_from_cache(repository, file, cache_dir=constants.HF_HUB_CACHE, revision=revision or None)
    return path if isinstance(path, str) else None


def _is_cached(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)).is_file()  # noqa: PTH119  (of a URL)
