"""Runs a command of the checkout around this file, whether or not pwfn is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pwfn import stopping


def launch(launcher: str) -> None:
    """Run the command that a launcher is named after, and end the process with its exit code."""
    stopping.listen()
    with stopping.at_once("stopped before anything began"):
        from pwfn.commands import run

        code = run(Path(launcher).stem, sys.argv[1:])
    sys.exit(code)
