"""Writing a file that was loaded again and found to be what it says; anything else leaves no file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from pwfn.errors import UserError
from pwfn.export.contents import load_state
from pwfn.export.evaluation import TestImages, evaluate_mean
from pwfn.export.metadata import Scalar
from pwfn.export.network import load
from pwfn.export.report import FileReport, measure_file
from pwfn.export.state import tensor_bits
from pwfn.training import Accuracy
from pwfn.whole import written_beside

MAX_LOSS = 0.01
"""How much top-1 accuracy narrow untouched tensors may cost; without them it may cost none."""
MAX_DRIFT = 0.01
"""How far the top-1 accuracy measured here may lie from the recorded one: other devices round otherwise."""


@dataclass(frozen=True)
class Checked:
    """A file that passed its checks."""

    report: FileReport
    before: Accuracy | None
    """Of the network that was exported; None without images."""
    after: Accuracy | None
    """Of the network that was loaded from the file."""


def write_checked(
    path: Path,
    content: bytes,
    original: nn.Module,
    *,
    fixed: Mapping[str, Tensor],
    exact: bool,
    images: TestImages | None,
    recorded: Mapping[str, Scalar],
    before: Accuracy | None = None,
) -> Checked:
    """Write a network's file, load it again, and keep it only if it holds what it should.

    Args:
        path: where to; an earlier file is replaced only in the end.
        content: of `encode_network`.
        original: the network that was encoded.
        fixed: its fixed set.
        exact: nothing was rounded, so that the accuracy must be the same.
        images: to measure on; None leaves the accuracy out.
        recorded: metrics to compare with, `unique_values` and `test_top1`, as far as known.
        before: accuracy of the original on the images; None: it is measured.

    Raises:
        UserError: the folder cannot be written, or a check failed; then no file is left.
    """
    with whole_file(path, content) as written:
        report = measure_file(written.read_bytes())
        loaded = load(written).to(next(original.parameters()).device)
        check_bits(fixed, dict(loaded.named_parameters()))
        check_values(report, recorded)
        after = None
        if images is not None:
            before = evaluate_mean(original, images) if before is None else before
            after = evaluate_mean(loaded, images)
            check_accuracy(before, after, exact=exact, recorded=recorded.get("test_top1"), num_images=len(images))
    return Checked(report, before, after)


def write_checked_state(path: Path, content: bytes, *, state: Mapping[str, Tensor]) -> FileReport:
    """Write the file of a state dict of unknown architecture, read it again, and keep it only if its bits are right.

    Raises:
        UserError: as `write_checked`.
    """
    with whole_file(path, content) as written:
        check_bits(state, load_state(written))
        return measure_file(written.read_bytes())


@contextmanager
def whole_file(path: Path, content: bytes) -> Iterator[Path]:
    """Write beside a path for the time of the block, and move there if nothing is raised.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        if path.is_dir():  # found out now, not after all checks
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with written_beside(path, content) as beside:
            yield beside
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def check_bits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare tensors bit by bit."""
    for name, tensor in expected.items():
        same = name in found and found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        if not same or not np.array_equal(tensor_bits(found[name]), tensor_bits(tensor)):
            raise UserError(f"check failed: {name} was not read back to the bit; no file was written")


def check_values(report: FileReport, recorded: Mapping[str, Scalar]) -> None:
    """Compare the number of distinct values with the recorded one."""
    expected = recorded.get("unique_values")
    if expected is not None and expected != report.metrics.unique_values:
        raise UserError(
            f"check failed: {report.metrics.unique_values} values in the file, {expected} on record; "
            "no file was written"
        )


def check_accuracy(before: Accuracy, after: Accuracy, *, exact: bool, recorded: Scalar, num_images: int) -> None:
    """Compare top-1 accuracies: of the exported network, of the loaded one, and on record."""
    if before != after and (exact or before.top1 - after.top1 > MAX_LOSS):
        raise UserError(
            f"check failed: top-1 accuracy {before.top1:.2%} before the export, {after.top1:.2%} after it"
            f"{'' if exact else '; use --rest-dtype float32'}; no file was written"
        )
    if isinstance(recorded, float) and abs(recorded - before.top1) > MAX_DRIFT + 2 / num_images:
        raise UserError(
            f"check failed: top-1 accuracy {before.top1:.2%} here, {recorded:.2%} on record; is the data the same? "
            "no file was written"
        )
