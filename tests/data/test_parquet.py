import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pwfn.config import DataConfig
from pwfn.data import Data, Preprocessing, open_source
from pwfn.errors import UserError

CPU = torch.device("cpu")
NAMES = ("cat", "dog")
METADATA = {"huggingface": json.dumps({"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}})}
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, image_size=4)


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _images(num: int, shape: tuple[int, ...] = (4, 4, 3)) -> list[bytes]:
    """Images whose every pixel is their row."""
    return [_png(np.full(shape, row)) for row in range(num)]


def _write(
    path: Path,
    images: list[Any],
    labels: Any = None,
    *,
    image_column: str = "img",
    label_column: str = "label",
    metadata: dict[str, str] | None = METADATA,
) -> None:
    contents = [image if image is None else {"bytes": image, "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [row % 2 for row in range(len(images))] if labels is None else labels
    columns = {image_column: pa.array(contents, kind), label_column: pa.array(labels)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=7)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    _write(tmp_path / "train.parquet", _images(40))
    _write(tmp_path / "test.parquet", _images(10))
    return tmp_path


def _prepare(root: Path, preprocessing: Preprocessing = PLAIN, **settings: Any) -> Data:
    config = DataConfig(name="parquet", root=str(root), **{"augmentation": "none", **settings})
    return open_source(config, seed=0).prepare(preprocessing, CPU)


def _rows(data: Data, split: str) -> list[int]:
    rows = [round(float(image[0, 0, 0])) for images, _ in data.batches(split, batch_size=8) for image in images]
    labels = [int(label) for _, labels in data.batches(split, batch_size=8) for label in labels]
    assert labels == [row % 2 for row in rows]
    return rows


def test_reads_images_labels_and_class_names(root: Path) -> None:
    source = open_source(DataConfig(name="parquet", root=str(root)), seed=0)
    assert (source.class_names, source.in_channels, source.image_size) == (NAMES, 3, 4)
    data = _prepare(root)
    assert _rows(data, "test") == list(range(10))
    assert sorted(_rows(data, "train") + _rows(data, "validation")) == list(range(40))


def test_channels_keep_their_order(tmp_path: Path) -> None:
    red_above_blue = np.zeros((4, 4, 3))
    red_above_blue[:2, :, 0] = 200
    red_above_blue[2:, :, 2] = 100
    for part in ("train", "test"):
        _write(tmp_path / f"{part}.parquet", [_png(red_above_blue)] * 10)
    images, _ = next(_prepare(tmp_path).batches("test", batch_size=1))
    torch.testing.assert_close(images[0], torch.from_numpy(red_above_blue).permute(2, 0, 1).float())


def test_limits_read_only_their_rows(root: Path) -> None:
    _write(root / "test.parquet", _images(40))
    kept = _rows(_prepare(root, test_images=4), "test")
    needed = {0, *kept}  # the first image tells the size
    _write(root / "test.parquet", [image if row in needed else b"broken" for row, image in enumerate(_images(40))])
    assert len(kept) == 4
    assert _rows(_prepare(root, test_images=4), "test") == kept


def test_grey_images_in_column_image_without_names(tmp_path: Path) -> None:
    for part in ("train", "test"):
        _write(tmp_path / f"{part}.parquet", _images(12, (4, 4)), image_column="image", metadata=None)
    source = open_source(DataConfig(name="parquet", root=str(tmp_path), validation_fraction=0.5), seed=0)
    assert (source.class_names, source.in_channels) == (("0", "1"), 1)
    assert _rows(_prepare(tmp_path, Preprocessing((0.0,), (1 / 255,), 4)), "test") == list(range(12))


def test_a_grey_image_among_colour_ones_is_read_as_colour(root: Path) -> None:
    _write(root / "test.parquet", [*_images(4), _png(np.full((4, 4), 4))])
    assert _rows(_prepare(root), "test") == [0, 1, 2, 3, 4]


def test_shards(tmp_path: Path) -> None:
    images = _images(40)
    _write(tmp_path / "train-00000-of-00002.parquet", images[:16])
    _write(tmp_path / "train-00001-of-00002.parquet", images[16:])
    _write(tmp_path / "test-00000-of-00001.parquet", images)
    data = _prepare(tmp_path)
    assert sorted(_rows(data, "train") + _rows(data, "validation")) == list(range(40))


@pytest.mark.slow
def test_real_sets_have_their_published_pixels(shared_data: Path) -> None:
    import hashlib

    digests = {
        "cifar10": "1249626010949d8f448e0faf792debbc3da0c50ed31bfff3678c99c37fbc7e48",
        "mnist": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    }
    for name, digest in digests.items():
        source = open_source(DataConfig(name="parquet", root=str(shared_data / name)), seed=0)
        data = source.prepare(
            Preprocessing((0.0,) * source.in_channels, (1 / 255,) * source.in_channels, source.image_size), CPU
        )
        assert (data.num_train + data.num_validation, data.num_test) == (
            {"cifar10": 50000, "mnist": 60000}[name],
            10000,
        )
        pixels = data._pixels["test"].images.permute(0, 2, 3, 1).contiguous()
        assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == digest


class TestErrors:
    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"data\.root: folder .*nowhere does not exist"):
            _prepare(tmp_path / "nowhere")

    def test_missing_file(self, root: Path) -> None:
        (root / "test.parquet").unlink()
        with pytest.raises(UserError, match=r"data\.root: .* has neither test\.parquet nor test-\*\.parquet"):
            _prepare(root)

    @pytest.mark.parametrize("keep", [0, 100, -100])
    def test_corrupt_file(self, root: Path, keep: int) -> None:
        content = (root / "train.parquet").read_bytes()
        (root / "train.parquet").write_bytes(content[:keep])
        with pytest.raises(UserError, match=r"train\.parquet: not a readable Parquet file: "):
            _prepare(root)

    def test_corrupt_page(self, root: Path) -> None:
        content = bytearray((root / "train.parquet").read_bytes())
        content[4:400] = b"\xff" * 396
        (root / "train.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"train\.parquet: not a readable Parquet file: [^\n]+$"):
            _prepare(root)

    @pytest.mark.parametrize("row", [0, 23])
    def test_corrupt_image(self, root: Path, row: int) -> None:
        images = _images(40)
        images[row] = images[row][:40]
        _write(root / "train.parquet", images)
        with pytest.raises(UserError, match=rf"train\.parquet, row {row}: not a readable image \(40 bytes\): "):
            _prepare(root)

    def test_corrupt_image_in_a_later_shard(self, root: Path) -> None:
        _write(root / "test-0.parquet", _images(5))
        _write(root / "test-1.parquet", [*_images(2), b"no image"])
        (root / "test.parquet").unlink()
        with pytest.raises(UserError, match=r"test-1\.parquet, row 2: not a readable image \(8 bytes\)"):
            _prepare(root)

    @pytest.mark.parametrize("image", [None, b""])
    def test_missing_image(self, root: Path, image: bytes | None) -> None:
        _write(root / "test.parquet", [*_images(3), image])
        with pytest.raises(
            UserError, match=r"test\.parquet, row 3: (the image's bytes are missing|not a readable image)"
        ):
            _prepare(root)

    def test_image_of_another_size(self, root: Path) -> None:
        _write(root / "test.parquet", [*_images(3), _png(np.zeros((4, 6, 3)))])
        message = r"test\.parquet, row 3: 6x4 pixels, but others 4x4; use data\.name=imagefolder"
        with pytest.raises(UserError, match=message):
            _prepare(root)

    def test_colour_image_among_grey_ones(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            _write(tmp_path / f"{part}.parquet", [*_images(11, (4, 4)), *_images(1)])
        with pytest.raises(UserError, match=r"\.parquet, row 11: a colour image among grey ones"):
            _prepare(tmp_path, Preprocessing((0.0,), (1.0,), 4))

    def test_image_of_sixteen_bits(self, root: Path) -> None:
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(buffer, "PNG")
        _write(root / "test.parquet", [*_images(3), buffer.getvalue()])
        with pytest.raises(UserError, match=r"row 3: an image of Pillow's mode I;16; only 8-bit"):
            _prepare(root)

    def test_no_image_column(self, root: Path) -> None:
        _write(root / "test.parquet", _images(3), image_column="picture")
        message = (
            r"test\.parquet: no column img or image of struct\{bytes, path\}; its columns are picture \(struct.*label"
        )
        with pytest.raises(UserError, match=message):
            _prepare(root)

    @pytest.mark.parametrize(("column", "labels"), [("fine_label", None), ("label", ["a", "b", "c"])])
    def test_no_label_column(self, root: Path, column: str, labels: list[str] | None) -> None:
        _write(root / "test.parquet", _images(3), labels, label_column=column)
        with pytest.raises(
            UserError, match=rf"test\.parquet: no column label of integers; its columns are img .*{column}"
        ):
            _prepare(root)

    def test_label_outside_the_classes(self, root: Path) -> None:
        _write(root / "train.parquet", _images(4), [0, 1, 2, 0])
        with pytest.raises(UserError, match=r"train\.parquet, row 2: label 2 is outside 0\.\.1 \(2 classes\)"):
            _prepare(root)

    def test_missing_label(self, root: Path) -> None:
        _write(root / "train.parquet", _images(4), [0, 1, None, 0])
        with pytest.raises(UserError, match=r"train\.parquet: 1 rows have no label"):
            _prepare(root)

    def test_no_rows(self, root: Path) -> None:
        _write(root / "test.parquet", [], np.zeros(0, np.int64))
        with pytest.raises(UserError, match=r"test\.parquet: holds no rows$"):
            _prepare(root)

    def test_test_file_with_other_class_names(self, root: Path) -> None:
        _write(root / "test.parquet", _images(10), metadata=None)
        message = r"test\.parquet: the schema's metadata names the classes None instead of \('cat', 'dog'\) as in train"
        with pytest.raises(UserError, match=message):
            _prepare(root)
