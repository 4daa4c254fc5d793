"""How the user called the program, so that messages name other commands in the same form."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command_line(command: str, *arguments: object) -> str:
    """Write a command in the form in which this process was called, quoted so that it can be pasted into a shell.

    That is `pwfn export --trial 0007`, or `python launchers/export.py --trial 0007` where a launcher of a checkout was
    called; interpreter and folder are then the ones that were typed.
    """
    script = Path(sys.argv[0])
    if script.suffix == ".py" and script.absolute().parent.name == "launchers":
        called = [sys.orig_argv[0], str(script.with_name(f"{command}.py"))]
    else:
        called = ["pwfn", command]
    return shlex.join([*called, *map(str, arguments)])
