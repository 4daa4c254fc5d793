"""From a stored image to 8-bit grey or colour: one rule for every source."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

WHITE_16 = 257
"""65535 / 255: 16-bit white becomes 8-bit white."""
MODES = {1: "L", 3: "RGB"}
"""Pillow's modes, by the number of channels."""
GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes of images without colour."""


class PixelError(ValueError):
    """An image that can be decoded, but not turned into 8 bits without guessing."""


def decode(content: bytes) -> Image.Image:
    """Decode an image's bytes, in whatever mode it is stored; broken bytes raise nearly anything."""
    image = Image.open(BytesIO(content))
    image.load()
    return image


def to_mode(image: Image.Image, channels: int, *, exif_orientation: bool = False) -> Image.Image:
    """Convert to 8 bits of 1 or 3 channels, as timm and torchvision do; their transparency is dropped.

    16-bit grey images keep their values, scaled from 0..65535 to 0..255 (Pillow alone cuts them off at 255, so that
    they look white).

    Raises:
        PixelError: 32-bit integers or floats, of which nobody knows what is white.
    """
    if exif_orientation:
        ImageOps.exif_transpose(image, in_place=True)
    mode = MODES[channels]
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM's to 16 bit
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels + WHITE_16 // 2) // WHITE_16).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "32-bit floats"
        raise PixelError(f"{kind} without a known white; store it with 8 or 16 bits")
    return image if image.mode == mode else image.convert(mode)


def describe_problem(where: str, error: Exception) -> str:
    """Say in a few words where an image is, and why it cannot be used."""
    if isinstance(error, PixelError):
        return f"{where}: an image of {error}"
    if isinstance(error, OSError) and error.strerror:
        file = "" if error.filename is None or str(error.filename) in where else f"{error.filename} "
        return f"{where}: {file}cannot be read: {error.strerror}"
    return f"{where}: not a readable image: {type(error).__name__}"
