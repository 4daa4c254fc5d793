"""Options that several commands share. Those of the data are named after the fields of `DataConfig`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from pwfn.config import DataConfig
from pwfn.errors import UserError

if TYPE_CHECKING:
    import torch

DATA_FIELDS = {
    "root": "data_root",
    "dataset": "data_dataset",
    "test_split": "data_test_split",
    "class_order": "data_class_order",
    "class_map": "data_class_map",
    "test_images": "data_test_images",
}
"""Fields of `DataConfig`, except `name`, with the names of their options."""


def at_least(lowest: int) -> Callable[[str], int]:
    """Make the argparse type of an option that takes whole numbers not below `lowest`."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {lowest}")
        return int(text)

    return number


def add_data_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--data`, further options of the data and `--batch-size`; the help shows `what`, the use of the images."""
    group = parser.add_argument_group("data", what)
    names = get_args(DataConfig.model_fields["name"].annotation)
    group.add_argument("--data", choices=names, help="kind of data set (default with --data-root: imagefolder)")
    group.add_argument("--data-root", metavar="DIR", help="its folder; ${NAME} is an environment variable")
    group.add_argument("--data-dataset", metavar="NAME",
                       help="torchvision: the class's name, e.g. CIFAR10; huggingface: name on the hub")  # fmt: skip
    group.add_argument("--data-test-split", metavar="NAME", help="which split or folder (default: test, else val)")
    group.add_argument("--data-class-order", choices=["natural", "lexical"], help="of folders (default: lexical)")
    group.add_argument("--data-class-map", metavar="FILE", help="number of each class: .txt or .json")
    group.add_argument("--data-test-images", type=int, metavar="N", help="use only N test images (default: all)")
    group.add_argument("--batch-size", type=at_least(1), default=512, metavar="N",
                       help="images per pass (default: 512)")  # fmt: skip


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")


def data_from(options: argparse.Namespace) -> DataConfig | None:
    """Build the configuration of the data; None if the options name no data.

    Raises:
        UserError: values that `DataConfig` does not allow; names the option.
    """
    given: dict[str, Any] = {field: getattr(options, option) for field, option in DATA_FIELDS.items()}
    if options.data is None and given["root"] is None:
        return None
    try:
        return DataConfig(name=options.data or "imagefolder", **given)
    except ValidationError as error:
        first = error.errors()[0]
        option = "-".join(["--data", *map(str, first["loc"])]).replace("_", "-")
        raise UserError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from error


def device_from(options: argparse.Namespace) -> torch.device:
    """Return the device to compute on.

    Raises:
        UserError: there is no such device.
    """
    import torch  # imported here, so that --help and misspelt options are answered at once

    name = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
