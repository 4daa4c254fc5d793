"""Copies what a report needs of a study into a few small files: `python launchers/publish.py --study digits --out DIR`.

Study.json, and the rows of trials, rounds and codebooks in one Parquet file each; no networks. `launchers/report.py
--results DIR --study digits` reads the copy like the original.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout that is not installed

from pwfn.errors import UserError


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Copy what a report needs of studies into a few small files.")
    parser.add_argument("--study", nargs="+", action="extend", required=True, metavar="NAME", help="studies to copy")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder or URI of the copies")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy each study; turn a user's error into one line and exit code 2."""
    from pwfn.results.store import ResultsStore

    options = parse(arguments)
    try:
        for study in options.study:
            copy = ResultsStore(options.results, study).publish(options.out)
            print(f"{copy.results}/{study}: {len(copy.read_trials())} trials")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
