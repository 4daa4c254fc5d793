"""Makes smaller files of an exported network by merging its values into fewer and fewer ones; checks each file.

pwfn shrink model.pwfn.safetensors --values 16 8 4
pwfn shrink model.pwfn.safetensors --values 16 8 4 --data digits --epochs 2 --out smaller
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pwfn.commands.options import add_data_options, add_device_options, at_least, data_from, device_from
from pwfn.config import Assignment, Augmentation

if TYPE_CHECKING:
    from pwfn.shrink import Shrunk

ROW = "{:>6}  {:>7}  {:>12}  {:>8}  {}"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser.add_argument("file", type=Path, help="written by `export`, or models/*.safetensors of a study")
    parser.add_argument("--values", type=at_least(1), nargs="+", required=True, metavar="N",
                        help="distinct values of each smaller network, falling: 16 8 4")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the new files (default: the file's own)")
    parser.add_argument("--weighting", choices=["plain", "fisher"],
                        help="of the weights when values are merged (default: fisher with data)")  # fmt: skip
    parser.add_argument("--assignment", choices=get_args(Assignment),
                        help="a weight takes the nearest value, or by GPFQ's path following or GPTQ one that makes "
                             "good for the errors of others (default: gptq with data)")  # fmt: skip
    parser.add_argument("--epochs", type=at_least(0), default=0, metavar="N",
                        help="straight-through training of each stage; needs data (default: 0)")  # fmt: skip
    parser.add_argument("--augmentation", choices=get_args(Augmentation),
                        help="of the training images, as data.augmentation (default: the file's)")  # fmt: skip
    add_data_options(parser, "images: BatchNorm is recalibrated on the training ones, accuracy is of the test ones")
    add_device_options(parser)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Shrink, and print a row for each file as it is written."""
    from pwfn.shrink import Wish, shrink

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pwfn").setLevel(logging.INFO)
    data = data_from(options)
    wish = Wish(
        sizes=tuple(options.values),
        out=options.out or options.file.parent,
        weighting=options.weighting or ("plain" if data is None else "fisher"),
        assignment=options.assignment or ("nearest" if data is None else "gptq"),
        epochs=options.epochs,
        batch_size=options.batch_size,
        device=device_from(options),
        augmentation=options.augmentation,
    )
    for index, shrunk in enumerate(shrink(options.file, data, wish)):
        if index == 0:
            if data is None:
                print("no data: values are merged only; BatchNorm is not recalibrated, accuracy not measured")
            if shrunk.left_out:
                print(shrunk.left_out)
            print(ROW.format("values", "entropy", "bytes", "accuracy", "file"))
        print(_row(shrunk), flush=True)
    return 0


def _row(shrunk: Shrunk) -> str:
    metrics = shrunk.report.metrics
    accuracy = "-" if shrunk.accuracy is None else f"{shrunk.accuracy.top1:.2%}"
    return ROW.format(
        metrics.unique_values, f"{metrics.entropy_bits:.3f}", f"{shrunk.report.file_bytes:,}", accuracy, shrunk.path
    )
