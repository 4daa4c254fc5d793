"""Reports a sweep, during it or later: `pwfn report --study digits`.

With `--watch` it makes the report again whenever trials have ended, until all have; reload the page in the browser.

It needs neither torch nor ray, so that it also runs on a laptop to which the results folder was copied.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser.add_argument(
        "--study", nargs="+", action="extend", required=True, metavar="NAME", help="one study, or several to compare"
    )
    parser.add_argument("--results", default="results", metavar="DIR", help="folder or URI of all studies [results]")
    parser.add_argument("--out", metavar="DIR", help="where the report goes [RESULTS/STUDY/report]")
    parser.add_argument("--watch", nargs="?", type=float, const=60.0, metavar="SECONDS",
                        help="make it again when trials have ended; look every SECONDS [60]")  # fmt: skip
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Load the studies, print their fronts and the verdict, write the report."""
    from rich.console import Console

    import analysis

    folders = [analysis.study_folder(options.results, study) for study in options.study]
    out = options.out or analysis.study_folder(folders[0], "report")
    if options.watch is not None:
        _watch(folders, out, options.watch)
    studies = [analysis.load(folder) for folder in folders]
    paths = analysis.write_report(studies, out)
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in analysis.front_tables(studies):
        console.print(table)
    for line in analysis.verdicts(studies):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for study in studies:
        for note in study.notes:
            print(f"note: {study.name}: {note}", file=sys.stderr)
    for path in paths:
        print(path)
    return 0


def _watch(folders: Sequence[str], out: str, seconds: float) -> None:
    """Make the report again and again, and print a line for each, until all trials have ended or Ctrl-C."""
    import analysis

    with suppress(KeyboardInterrupt):
        for line in analysis.watch(folders, out, seconds=seconds):
            print(line, flush=True)
