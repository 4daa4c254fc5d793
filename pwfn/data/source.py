"""From a configuration to an opened data set."""

from __future__ import annotations

from pwfn.config import DataConfig
from pwfn.data.contract import Source
from pwfn.data.digits import open_digits
from pwfn.data.folder import open_imagefolder
from pwfn.data.named import open_torchvision
from pwfn.data.parquet import open_parquet
from pwfn.errors import UserError
from pwfn.paths import expand_path


def open_source(config: DataConfig, *, seed: int) -> Source:
    """Open a data set: read its labels, draw its splits, look at its first image; decode nothing else.

    Args:
        config: which set, and how it is split.
        seed: of the study; draws the split where `config.split_seed` is None.

    Raises:
        UserError: data that is missing, unreadable or of an unexpected form; names field, file and row.
    """
    if config.name == "digits":
        return open_digits(config, seed)
    root = expand_path(config.root or "", "data.root")
    if not root.is_dir():
        raise UserError(f"data.root: folder {root} does not exist")
    if config.name == "parquet":
        return open_parquet(config, root, seed)
    if config.name == "imagefolder":
        return open_imagefolder(config, root, seed)
    return open_torchvision(config, root, seed)
