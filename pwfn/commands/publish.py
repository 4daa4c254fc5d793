"""Copies what a report needs of studies to a few small files: `pwfn publish --study digits --out DIR`.

The copy has study.json and one Parquet file each for the rows of trials, rounds and codebooks; it has no networks.
`pwfn report --results DIR --study digits` reads it like the original.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser.add_argument("--study", nargs="+", action="extend", required=True, metavar="NAME", help="studies to copy")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder or URI of the copies")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Copy each study."""
    from pwfn.results.store import ResultsStore

    for study in options.study:
        copy = ResultsStore(options.results, study).publish(options.out)
        print(f"{copy.results}/{study}: {len(copy.read_trials())} trials")
    return 0
