"""Runs one trial by hand, with the same code, records and files as a trial of a search.

pwfn train --space digits.yaml --set method.b=5 training.lr=0.003
pwfn train --study digits --trial 0007        again, with the same seed

The same command goes on with a trial that was interrupted, from its last round; so does --trial with its number.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pwfn import stopping
from pwfn.invocation import command_line


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--space", help="run the first known good setting of a YAML file or of one in search_spaces/")
    what.add_argument("--trial", metavar="ID", help="run a recorded trial of --study again")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", dest="overrides",
                        help="fields of the configuration, e.g. method.b=7 (with --space)")  # fmt: skip
    parser.add_argument("--study", help="with --trial: the study it is from; with --space: the study it goes to")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--seed", type=int, help="seed of the study (with --space)")
    parser.add_argument("--address", help="Ray cluster for a trial of several workers (default: this machine)")
    parser.add_argument("--check-data", action="store_true",
                        help="look at every image here and list the broken ones before anything starts")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.trial and not options.study:
        parser.error("--trial needs --study")
    if options.trial and (options.overrides or options.seed is not None):
        parser.error("--set and --seed go with --space: a recorded trial runs as it is")
    return options


def run(options: argparse.Namespace) -> int:
    """Run the trial and print its row's main numbers; return the exit code."""
    with stopping.at_once("stopped before the trial began"):
        from pwfn.sweep.cluster import prepare_environment

        prepare_environment(local=options.address is None)
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        logging.getLogger("pwfn").setLevel(logging.INFO)
        from pwfn.results.store import ResultsStore
        from pwfn.space.space import SearchSpace
        from pwfn.sweep.by_hand import config_of_begun, config_of_space, config_of_trial, run_by_hand

    origin = None
    if options.trial:
        recorded = ResultsStore(options.results, options.study)
        config = config_of_begun(recorded, options.trial.zfill(4))
        study = options.study
        if config is None:
            origin, study = recorded, f"{options.study}-by-hand"
            config = config_of_trial(recorded, options.trial.zfill(4))
    else:
        space = SearchSpace.load(options.space, options.overrides, seed=options.seed)
        config = config_of_space(space)
        study = options.study or f"{space.name}-by-hand"
    if options.check_data:
        from rich.console import Console

        from pwfn.commands.search import check_data

        check_data([config], Console())
    store = ResultsStore(options.results, study)
    try:
        row = run_by_hand(config, store, address=options.address, command=options.command_line, origin=origin)
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on from the last round", file=sys.stderr)
        return stopping.exit_code(stop)
    if row["state"] == "failed":
        print(f"error: trial {row['trial_id']} failed: {row['failure_message']}", file=sys.stderr)
        return 2 if row["failure_class"] == "user" else 1
    print(_summary(row, options.results, study))
    return 0


def _summary(row: Mapping[str, Any], results: str, study: str) -> str:
    trial, out = row["trial_id"], f"{study}-{row['trial_id']}.pwfn.safetensors"
    export = command_line("export", "--results", results, "--study", study, "--trial", trial, "--out", out)
    broken = row["num_broken_images"]
    left_out = f"left out:   {broken:,} images that cannot be read (data.broken_images: skip)\n" if broken else ""
    before = ""
    if row.get("test_top1_before") is not None:  # it is left out where nothing was trained
        before = (
            f"before the last fixing: test {row['test_top1_before']:.2%}, validation {row['val_top1_before']:.2%}\n"
        )
    return (
        f"float:      test {row['float_test_top1']:.2%}, validation {row['float_val_top1']:.2%}\n"
        f"{before}"
        f"compressed: test {row['test_top1']:.2%}, validation {row['val_top1']:.2%}, "
        f"{row['unique_values']} values, {row['entropy_bits']:.2f} bits per weight, {row['size_bytes']} bytes "
        f"({row['compression_ratio']:.1f} times smaller)\n"
        f"{left_out}"
        f"row:        {results}/{study}/trials/{trial}.parquet\n"
        f"export it:  {export}"
    )
