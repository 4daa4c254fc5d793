"""Every kind of stored pixel gives the right 8-bit values, from files and from tables alike, or one refusal."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import opened, write_parquet
from PIL import Image

from pwfn.data import Preprocessing
from pwfn.errors import UserError

LEVELS = np.arange(0, 65536, 4096).reshape(4, 4)
EXPECTED = torch.from_numpy(np.round(LEVELS / 257).astype(np.uint8))


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _read(root: Path, content: bytes, suffix: str, how: str, channels: int = 1, **settings: Any) -> torch.Tensor:
    """Store an image in one way, and give its pixels as the network gets them, in 0..255."""
    for part in ("train", "test"):
        if how == "parquet":
            write_parquet(root / f"{part}.parquet", [content] * 8, [0, 1] * 4)
        for row in range(8):
            folder = root / "files" / part / str(row % 2)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}{suffix}").write_bytes(content)
    where, name = (root, "parquet") if how == "parquet" else (root / "files", "imagefolder")
    source = opened(where, name, channels=channels, in_memory=how == "parquet", **settings)
    plain = Preprocessing((0.0,) * channels, (1 / 255,) * channels, 4)
    images, _ = next(source.prepare(plain, torch.device("cpu")).batches("test", batch_size=1))
    return images[0].round().to(torch.uint8)


@pytest.mark.parametrize("how", ["parquet", "imagefolder"])
@pytest.mark.parametrize(
    ("kind", "suffix", "dtype"),
    [("PNG", ".png", "<u2"), ("TIFF", ".tif", "<u2"), ("TIFF", ".tif", ">u2"), ("PPM", ".pgm", "<u2")],
)
def test_sixteen_bits(tmp_path: Path, how: str, kind: str, suffix: str, dtype: str) -> None:
    content = _encode(Image.fromarray(LEVELS.astype(dtype)), kind)
    assert torch.equal(_read(tmp_path, content, suffix, how)[0], EXPECTED)
    colour = _read(tmp_path, content, suffix, how, channels=3)
    assert all(torch.equal(channel, EXPECTED) for channel in colour)


@pytest.mark.parametrize("how", ["parquet", "imagefolder"])
@pytest.mark.parametrize(("dtype", "words"), [(np.float32, "floats"), (np.int32, "integers")])
def test_thirty_two_bits_are_refused_alike(tmp_path: Path, how: str, dtype: Any, words: str) -> None:
    content = _encode(Image.fromarray(LEVELS.astype(dtype)), "TIFF")
    with pytest.raises(
        UserError, match=f"an image of 32-bit {words} without a known white; store it with 8 or 16 bits"
    ):
        _read(tmp_path, content, ".tif", how)


@pytest.mark.parametrize("how", ["parquet", "imagefolder"])
def test_orientation_is_ignored_as_timm_does_or_applied_everywhere(tmp_path: Path, how: str) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    stored, turned = (torch.from_numpy(each.copy()).permute(2, 0, 1) for each in (pixels, pixels[::-1, ::-1]))
    assert torch.equal(_read(tmp_path, buffer.getvalue(), ".png", how, channels=3), stored)
    assert torch.equal(_read(tmp_path, buffer.getvalue(), ".png", how, channels=3, exif_orientation=True), turned)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_other_modes_are_what_pillow_makes_of_them(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8)).convert(mode)
    kind, suffix = ("TIFF", ".tif") if mode == "CMYK" else ("PNG", ".png")
    expected = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    for how in ("parquet", "imagefolder"):
        assert torch.equal(_read(tmp_path / how, _encode(image, kind), suffix, how, channels=3), expected)
