"""The program `pwfn`, also called as `python -m pwfn`."""

from __future__ import annotations

import sys

from pwfn import stopping


def main() -> int:
    """Run the command that the command line names; return its exit code."""
    stopping.listen()
    with stopping.at_once("stopped before anything began"):
        from pwfn.commands import main

        return main()


if __name__ == "__main__":
    sys.exit(main())
