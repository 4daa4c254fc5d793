"""Paths as users write them in configurations."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pwfn.config import shared_data_folder
from pwfn.errors import UserError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def expand_path(text: str, field: str) -> Path:
    """Replace `${NAME}` by the environment variable NAME and a leading `~` by the home folder.

    Args:
        text: the path as the user wrote it; `${PWFN_DATA}` is `pwfn.config.shared_data_folder()`.
        field: name of the field of the configuration, for the message.

    Raises:
        UserError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "PWFN_DATA" and (folder := shared_data_folder()) is not None:
            return str(folder)
        if name not in os.environ:
            raise UserError(f"{field}: {text!r} needs the environment variable {name}, which is not set; export it")
        return os.environ[name]

    return Path(_VARIABLE.sub(value, text)).expanduser()


def variables_in(text: str) -> set[str]:
    """Return the names of all `${NAME}` in a text."""
    return set(_VARIABLE.findall(text))
