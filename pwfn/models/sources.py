"""Where a network's name comes from (timm's registry, a hub, a folder), and pretrained weights that are to be had."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import get_arch_pretrained_cfgs, is_model, parse_model_name, split_model_name_tag

from pwfn.errors import UserError, first_line, nearest_names
from pwfn.models import networks  # noqa: F401  (registers ours with timm)

PATIENCE_SECONDS = 3.0
"""How long a server may take to answer before it counts as out of reach."""
WEIGHT_FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository of a hub, in its order."""
WAY_OUT = "fetch them on a machine with network access, or give model.checkpoint"


def check_name(name: str) -> None:
    """Refuse a name that is neither timm's nor ours, nor a source of its own.

    Raises:
        UserError: says what is like it, or what the folder lacks.
    """
    try:
        source, model = parse_model_name(name)
    except ValueError as error:
        raise UserError(f"model.name: {first_line(error)}") from error
    if source == "local-dir":
        folder_architecture(Path(model))
        return
    if source is not None:
        return
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


def reachable_settings(name: str) -> dict[str, Any]:
    """Return what `timm.create_model` needs to load pretrained weights: nothing, or the files that are cached.

    Asks the server once, with little patience, before the libraries do so many times.

    Raises:
        UserError: the weights are neither cached nor to be had.
    """
    source, model = parse_model_name(name)
    if source == "local-dir":
        return {}
    record = None if source else timm.get_pretrained_cfg(name)
    repository = model if source else getattr(record, "hf_hub_id", None)
    if not repository:
        url = getattr(record, "url", None)
        if url and not _is_cached(url) and not _answers(url):
            raise UserError(f"model.pretrained: the weights of {name} cannot be had ({url} is out of reach); {WAY_OUT}")
        return {}
    if not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT):
        return {}
    named = getattr(record, "hf_hub_filename", None)
    files = [_cached(repository, file) for file in ((named,) if named else WEIGHT_FILES)]
    found = next((file for file in files if file is not None), None)
    if found is None or (source and _cached(repository, "config.json") is None):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} is out of reach"
        raise UserError(f"model.pretrained: the weights of {name} cannot be had ({why}); {WAY_OUT}")
    overlay = {"file": found, "hf_hub_id": None, "url": None, "source": None}
    custom = getattr(record, "custom_load", False)
    return {} if custom or source else {"pretrained_cfg_overlay": overlay}


def _cached(repository: str, file: str) -> str | None:
    repository, _, revision = repository.partition("@")
    path = try_to_load_from_cache(repository, file, cache_dir=constants.HF_HUB_CACHE, revision=revision or None)
    return path if isinstance(path, str) else None


def _is_cached(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(url)).is_file()  # noqa: PTH119  (of a URL)


def _answers(url: str) -> bool:
    """Whether a server says anything at all in time; its name may take longer to look up than a timeout covers."""
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return answers == [True]
