"""Another state of a data set has another fingerprint, which says what is different; the same state has the same."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pwfn.config import DataConfig
from pwfn.data import fingerprint, open_source
from pwfn.errors import UserError


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(grey).integers(0, 255, (8, 8), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, num: int, first: int = 0, labels: int = 2) -> None:
    contents = [{"bytes": png(first + row), "path": None} for row in range(num)]
    images = pa.array(contents, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"img": images, "label": [row % labels for row in range(num)]}), path)


def parquet(root: Path) -> DataConfig:
    root.mkdir(exist_ok=True)
    write_parquet(root / "train.parquet", 20)
    write_parquet(root / "test.parquet", 10, first=20)
    return DataConfig(name="parquet", root=str(root))


def folder(root: Path) -> DataConfig:
    for part, num in (("train", 6), ("val", 2)):
        for label in ("ant", "bee"):
            (root / part / label).mkdir(parents=True)
            for number in range(num):
                (root / part / label / f"{number}.png").write_bytes(png(number))
    return DataConfig(name="imagefolder", root=str(root))


def mnist(root: Path) -> DataConfig:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, num in (("train", 30), ("t10k", 10)):
        images = np.random.default_rng(num).integers(0, 255, (num, 28, 28))
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", np.arange(num) % 10)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / name).write_bytes(header + array.astype(np.uint8).tobytes())
    return DataConfig(name="torchvision", root=str(root), dataset="MNIST")


def country211(root: Path) -> DataConfig:
    for split, num in (("train", 6), ("valid", 2), ("test", 2)):
        for country in ("AD", "AE"):
            (root / "country211" / split / country).mkdir(parents=True)
            for number in range(num):
                (root / "country211" / split / country / f"{number}.png").write_bytes(png(number))
    return DataConfig(name="torchvision", root=str(root), dataset="Country211")


def imagenette(root: Path) -> DataConfig:
    for split in ("train", "val"):
        for wnid in ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042",
                     "n03425413", "n03445777", "n03888257"):  # fmt: skip
            (root / "imagenette2" / split / wnid).mkdir(parents=True)
            for number in range(2):
                (root / "imagenette2" / split / wnid / f"{number}.JPEG").write_bytes(png(number))
    return DataConfig(name="torchvision", root=str(root), dataset="Imagenette")


def pixel_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def fingerprint_of(config: DataConfig) -> dict[str, str]:
    return open_source(config, seed=0).fingerprint()


CHANGES = [
    (parquet, lambda root: write_parquet(root / "train.parquet", 20, first=50), {"training images"}),
    (
        parquet,
        lambda root: write_parquet(root / "test.parquet", 11, first=20),
        {"test images", "number of test images", "test labels"},
    ),
    (
        parquet,
        lambda root: write_parquet(root / "train.parquet", 20, labels=3),
        {"training images", "training labels", "class names"},
    ),
    (folder, lambda root: (root / "train/ant/0.png").write_bytes(b"longer" * 90), {"training images"}),
    (folder, lambda root: (root / "val/bee/0.png").rename(root / "val/bee/7.png"), {"test images"}),
    (
        folder,
        lambda root: [(root / f / "bee").rename(root / f / "cow") for f in ("train", "val")],
        {"class names", "training images", "test images"},
    ),
    (
        folder,
        lambda root: (root / "train/bee/0.png").unlink(),
        {"training images", "number of training images", "training labels"},
    ),
    (mnist, lambda root: pixel_changed(root / "MNIST/raw/t10k-images-idx3-ubyte"), {"test images"}),
    (mnist, lambda root: pixel_changed(root / "MNIST/raw/train-labels-idx1-ubyte"), {"training labels"}),
    (country211, lambda root: (root / "country211/test/AD/0.png").write_bytes(b"longer" * 90), {"test images"}),
    (imagenette, lambda root: (root / "imagenette2/val/n01440764/0.JPEG").write_bytes(b"x" * 900), {"test images"}),
]


@pytest.mark.parametrize(("make", "change", "expected"), CHANGES)
def test_a_change_is_seen_and_named(
    make: Callable[[Path], DataConfig], change: Callable[[Path], object], expected: set[str], tmp_path: Path
) -> None:
    config = make(tmp_path / "data")
    before = fingerprint_of(config)
    change(tmp_path / "data")
    after = fingerprint_of(config)
    assert {name for name in before if before[name] != after[name]} == expected
    assert before.keys() == after.keys()


@pytest.mark.parametrize("make", [parquet, folder, mnist, country211, imagenette])
def test_a_copy_elsewhere_is_the_same_data(make: Callable[[Path], DataConfig], tmp_path: Path) -> None:
    config = make(tmp_path / "data")
    before = fingerprint_of(config)
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    assert fingerprint_of(config.model_copy(update={"root": str(tmp_path / "elsewhere")})) == before


def test_counts_are_words_that_a_message_can_hold(tmp_path: Path) -> None:
    found = fingerprint_of(DataConfig(name="digits"))
    assert found["number of training images"] == "1797"
    assert all(len(found[name]) == fingerprint.HEX_DIGITS for name in found if not name.startswith("number"))


def test_where_files_are_many_only_some_sizes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder(tmp_path)
    whole = fingerprint_of(config)
    monkeypatch.setattr(fingerprint, "MAX_SIZES", 3)
    some = fingerprint_of(config)
    assert some["training images"] != whole["training images"]
    (tmp_path / "train/ant/1.png").write_bytes(b"longer" * 90)  # the second of twelve, of which every fourth is read
    assert fingerprint_of(config) == some
    (tmp_path / "train/ant/4.png").write_bytes(b"longer" * 90)
    assert fingerprint_of(config) != some


def test_a_file_that_the_set_lists_and_that_is_gone_is_named(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path), seed=0)
    (tmp_path / "train/ant/3.png").unlink()
    with pytest.raises(UserError, match=r"^data\.root: .*train/ant/3\.png cannot be read: No such file"):
        source.fingerprint()
