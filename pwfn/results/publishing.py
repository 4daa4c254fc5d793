"""Takes the folders of the machine that ran a study out of what is published of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

from pwfn.errors import UserError
from pwfn.paths import expand_path, variables_in


def without_folders(study: Mapping[str, Any], configs: Collection[str], results: str) -> dict[str, Any]:
    """Return a study's record as it would read on any machine.

    The folder of a variable (`${NAME}`) that a configuration names becomes the variable again, the results folder its
    last part; the command begins with `python launchers/...` or `pwfn`, without the folders of the interpreter and of
    the checkout. A variable that is not set any more leaves its folder as it is.

    Args:
        study: content of study.json.
        configs: JSON of the configurations of its trials.
        results: folder of the results, absolute, or a URI.
    """
    shorter = {results: PurePath(results).name} if results.startswith("/") else {}
    for name in {name for config in configs for name in variables_in(config)}:
        variable = f"${{{name}}}"
        try:
            shorter[str(expand_path(variable, "publish"))] = variable
        except UserError:
            continue
    known = _replaced(dict(study), dict(sorted(shorter.items(), key=lambda pair: -len(pair[0]))))
    if isinstance(command := known.get("command"), str):
        known["command"] = _portable(command)
    return known  # type: ignore[no-any-return]


def _replaced(value: Any, shorter: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for folder, name in shorter.items():
            value = name.join(re.split(rf"{re.escape(folder)}(?![\w.-])", value))
        return value
    if isinstance(value, dict):
        return {key: _replaced(part, shorter) for key, part in value.items()}
    return [_replaced(part, shorter) for part in value] if isinstance(value, list) else value


def _portable(command: str) -> str:
    """Shorten the paths of interpreter and launcher, the first two words of a command."""
    words = shlex.split(command)
    if len(words) > 1 and PurePath(words[1]).parent.name == "launchers":
        words[:2] = [PurePath(words[0]).name, f"launchers/{PurePath(words[1]).name}"]
    return shlex.join(words)
