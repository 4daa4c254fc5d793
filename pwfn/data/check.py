"""Looks at every image of a data set before anything is computed: `--check-data`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from pwfn.data.pixels import describe_problem, to_mode
from pwfn.data.source import Source
from pwfn.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

CHUNK = 256
SHOWN = 50
"""Broken images that are listed; their number is always given."""


def check_images(source: Source, console: Console) -> int:
    """Decode every image of all splits in threads, with a progress bar, and list the broken ones.

    Pillow lets other threads run while it decodes, so that threads are as fast as processes here. Returns how many are
    broken, where those are to be skipped.

    Raises:
        UserError: there are broken images, and they are not to be skipped.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    splits = source.splits
    rows = torch.cat([splits.train, splits.validation, splits.test]).sort().values.tolist()
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    broken: list[str] = []
    columns = ("images", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(os.cpu_count()) as threads:
        task = progress.add_task("images", total=len(rows))
        for chunk, found in zip(chunks, threads.map(lambda chunk: _broken(source, chunk), chunks), strict=True):
            broken += found
            progress.advance(task, len(chunk))
    for line in broken[:SHOWN]:
        console.print(f"broken: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(rows):,} images looked at, {len(broken):,} broken", highlight=False)
    if broken and source.config.broken_images == "refuse":
        raise UserError(
            f"{len(broken)} of {len(rows)} images are broken, the first is {broken[0]}; mend or remove them, or leave "
            "them out with data.broken_images=skip"
        )
    return len(broken)


def _broken(source: Source, rows: list[int]) -> list[str]:
    lines = []
    for row in rows:
        try:
            to_mode(source.images.picture(row), source.in_channels)
        except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
            lines.append(describe_problem(source.images.where(row), error))
    return lines
