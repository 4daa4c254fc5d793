"""The way in which the user called the program, so that messages name other commands in the same way."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command_line(command: str, *arguments: object) -> str:
    """Write a command in the way in which this process was called, quoted so that it can be pasted into a shell.

    For example `pwfn export --trial 0007`. If a launcher of a checkout was called, it is `python launchers/export.py
    --trial 0007`, with the interpreter and the folder that the user typed.
    """
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.absolute().parent.name == "launchers":
        called = [sys.orig_argv[0], str(script.with_name(f"{command}.py"))]
    else:
        called = ["pwfn", command]
    return shlex.join([*called, *map(str, arguments)])
