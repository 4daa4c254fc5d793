"""Measures an exported network: accuracy, values and sizes, and the ensemble of its posterior if the file has sigmas.

pwfn evaluate model.pwfn.safetensors --data digits
pwfn evaluate model.pwfn.safetensors --data imagefolder --data-root /data/imagenet
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pwfn.commands.options import add_data_options, add_device_options, at_least, data_from, device_from


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser.add_argument("file", type=Path, help="written by `export`, or models/*.safetensors of a study")
    parser.add_argument("--ensemble-draws", type=at_least(0), default=20, metavar="N",
                        help="networks drawn from the posterior, if the file has its sigmas (default: 20)")  # fmt: skip
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
