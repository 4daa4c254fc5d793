"""Whether all images of a column are grey, from their headers: no image is decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pwfn.data.pixels import GREY

PNG_SIGNATURE = np.frombuffer(b"\x89PNG\r\n\x1a\n", np.uint8)
PNG_COLOUR_TYPE = 25
"""Byte of a PNG file that says whether it is grey (0, or 4 with transparency); PNG specification, section 11.2.2."""
PNG_GREY = (0, 4)


def all_grey(cells: Any) -> bool:
    """Look at every image of a column of bytes, or of records with bytes or a path; one that is broken does not count.

    PNG files, as most small sets have them, are looked at all at once: to open 60,000 of them takes Pillow seconds.
    """
    for chunk in cells.chunks:
        is_record = pa.types.is_struct(chunk.type)
        column = chunk.field("bytes") if is_record else chunk
        paths = chunk.field("path") if is_record and chunk.type.get_field_index("path") >= 0 else column
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            return _rows_are_grey(column)
        if not (_png_are_grey(column) if _are_png(column) else _opened_are_grey(column, paths)):
            return False
    return True


def _bytes_at(column: Any, places: range) -> Any:
    """Return bytes `(images, places)` of each image; images have to be that long."""
    kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column)]
    return np.frombuffer(data, np.uint8)[starts[:, None].astype(np.int64) + np.arange(places.start, places.stop)]


def _are_png(column: Any) -> bool:
    if column.null_count or not len(column) or pc.min(pc.binary_length(column)).as_py() <= PNG_COLOUR_TYPE:
        return False
    return bool((_bytes_at(column, range(len(PNG_SIGNATURE))) == PNG_SIGNATURE).all())


def _png_are_grey(column: Any) -> bool:
    return bool(np.isin(_bytes_at(column, range(PNG_COLOUR_TYPE, PNG_COLOUR_TYPE + 1)), PNG_GREY).all())


def _opened_are_grey(column: Any, paths: Any) -> bool:
    for cell, path in zip(column, paths, strict=True):
        try:
            with Image.open(pa.BufferReader(cell.as_buffer()) if cell.is_valid else path.as_py()) as image:
                if image.mode not in GREY:
                    return False
        except Exception:
            continue
    return True


def _rows_are_grey(column: Any) -> bool:
    """Pixels as nested lists: grey where an image has two dimensions, or one channel."""
    first = np.asarray(column[0].as_py())
    return first.ndim == 2 or 1 in (first.shape[0], first.shape[-1])
