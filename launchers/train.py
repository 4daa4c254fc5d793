"""Run one trial by hand: the same code, records and files as a trial of a search.

python launchers/train.py --space digits.yaml --set method.b=5 training.lr=0.003
python launchers/train.py --study digits --trial 0007        again, with the same seed
"""

import argparse
import logging
import shlex
import sys

from pwfn.errors import UserError
from pwfn.sweep.cluster import prepare_environment


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run one trial by hand.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--space", help="run the first known good setting of a YAML file or of one in search_spaces/")
    what.add_argument("--trial", metavar="ID", help="run a recorded trial of --study again")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", dest="overrides",
                        help="fields of the configuration, e.g. method.b=7 (with --space)")  # fmt: skip
    parser.add_argument("--study", help="with --trial: the study it is from; with --space: the study it goes to")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--seed", type=int, help="seed of the study (with --space)")
    parser.add_argument("--address", help="Ray cluster for a trial of several workers (default: this machine)")
    arguments = parser.parse_args()
    if arguments.trial and not arguments.study:
        parser.error("--trial needs --study")
    if arguments.trial and (arguments.overrides or arguments.seed is not None):
        parser.error("--set and --seed go with --space: a recorded trial runs as it is")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Run the trial and print its row's main numbers; return the exit code."""
    from pwfn.results.store import ResultsStore
    from pwfn.space.space import SearchSpace
    from pwfn.sweep.by_hand import config_of_space, config_of_trial, run_by_hand

    origin = None
    if arguments.trial:
        origin = ResultsStore(arguments.results, arguments.study)
        config = config_of_trial(origin, arguments.trial.zfill(4))
        study = f"{arguments.study}-by-hand"
    else:
        space = SearchSpace.load(arguments.space, arguments.overrides, seed=arguments.seed)
        config = config_of_space(space)
        study = arguments.study or f"{space.name}-by-hand"
    store = ResultsStore(arguments.results, study)
    row = run_by_hand(config, store, address=arguments.address, command=shlex.join(sys.argv), origin=origin)
    if row["state"] == "failed":
        print(f"error: trial {row['trial_id']} failed: {row['failure_message']}", file=sys.stderr)
        return 2 if row["failure_class"] == "user" else 1
    print(
        f"float:      test {row['float_test_top1']:.2%}, validation {row['float_val_top1']:.2%}\n"
        f"before the last fixing: test {row['test_top1_before']:.2%}, validation {row['val_top1_before']:.2%}\n"
        f"compressed: test {row['test_top1']:.2%}, validation {row['val_top1']:.2%}, "
        f"{row['unique_values']} values, {row['entropy_bits']:.2f} bits per weight, {row['size_bytes']} bytes "
        f"({row['compression_ratio']:.1f} times smaller)\n"
        f"row:        {arguments.results}/{study}/trials/{row['trial_id']}.parquet\n"
        f"export it:  python launchers/export.py --results {shlex.quote(arguments.results)} --study {study} "
        f"--trial {row['trial_id']} --out {study}-{row['trial_id']}.pwfn.safetensors"
    )
    return 0


def main() -> int:
    """Run, and turn a user's error into one line and exit code 2."""
    arguments = parse()
    prepare_environment(local=arguments.address is None)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pwfn").setLevel(logging.INFO)
    try:
        return run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
