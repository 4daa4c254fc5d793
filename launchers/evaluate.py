"""Measures an exported network: accuracy, values, sizes, and its posterior's ensemble where sigmas were kept.

python launchers/evaluate.py model.pwfn.safetensors --data digits
python launchers/evaluate.py model.pwfn.safetensors --data imagefolder --data-root /data/imagenet
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout that is not installed

from pwfn.errors import UserError
from pwfn.options import add_data_options, add_device_options, at_least, data_from, device_from


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure an exported network.")
    parser.add_argument("file", type=Path, help="written by launchers/export.py, or models/*.safetensors of a study")
    parser.add_argument("--ensemble-draws", type=at_least(0), default=20, metavar="N",
                        help="networks drawn from the posterior, where its sigmas were kept (default: 20)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of these draws (default: 0)")
    add_data_options(parser, "the images to measure on")
    add_device_options(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from pwfn.export.command import evaluate_file
    from pwfn.export.report import format_lines

    lines = evaluate_file(
        options.file,
        data_from(options),
        device=device_from(options),
        batch_size=options.batch_size,
        draws=options.ensemble_draws,
        seed=options.seed,
    )
    print(format_lines([("file", str(options.file)), *lines]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and turn a user's error into one line and exit code 2."""
    try:
        return run(parse(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
