"""What every data source does: one class of tests that each passes."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data import Data, Preprocessing, Source, open_source
from pwfn.errors import UserError

NAMES = get_args(DataConfig.model_fields["name"].annotation)
SPLITS = ("train", "validation", "test")
CLASSES = ("ant", "bee", "cow")
NUM_TRAIN, NUM_TEST = 36, 12
SIDE = 8


def picture(row: int) -> bytes:
    """A PNG whose pixels tell its row: no two are equal, and those of one class are alike in nothing else."""
    pixels = np.random.default_rng(row).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(split: str, num_train: int) -> range:
    return range(num_train) if split == "train" else range(1000, 1000 + NUM_TEST)


def write_image_files(root: Path, num_train: int) -> dict[str, Any]:
    for split in ("train", "test"):
        for row in rows_of(split, num_train):
            folder = root / split / CLASSES[row % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:04d}.png").write_bytes(picture(row))
    return {"root": str(root)}


def write_parquet(root: Path, num_train: int) -> dict[str, Any]:
    label = {"names": list(CLASSES), "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    for split in ("train", "test"):
        rows = rows_of(split, num_train)
        images = pa.array([{"bytes": picture(row), "path": None} for row in rows],
                          pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
        table = pa.table({"image": images, "label": [row % 3 for row in rows]})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), root / f"{split}.parquet")
    return {"root": str(root)}


def write_tars(root: Path, num_train: int) -> dict[str, Any]:
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}-000000.tar", "w") as tar:
            for row in rows_of(split, num_train):
                for suffix, content in (("png", picture(row)), ("cls", str(row % 3).encode())):
                    entry = tarfile.TarInfo(f"{row:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return {"root": str(root)}


def write_mnist(root: Path, num_train: int) -> dict[str, Any]:
    """MNIST's own format: type and number of dimensions, their sizes, then bytes."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, split in (("train", "train"), ("t10k", "test")):
        rows = rows_of(split, num_train)
        pixels = np.stack([np.random.default_rng(row).integers(0, 256, (28, 28), np.uint8) for row in rows])
        for name, array in (("images-idx3", pixels), ("labels-idx1", np.array(rows) % 10)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / f"{part}-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return {"root": str(root), "dataset": "MNIST", "image_size": 28}


def write_nothing(root: Path, num_train: int) -> dict[str, Any]:
    return {}


CASES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "digits": write_nothing,
    "imagefolder": write_image_files,
    "parquet": write_parquet,
    "torchvision": write_mnist,
    "webdataset": write_tars,
    "huggingface": write_parquet,
}
"""Per name of a source: a function that writes a small set of it, of so many training images, and says where it is."""
WRITTEN = [name for name in NAMES if CASES.get(name) is not write_nothing]


def opened(name: str, root: Path, *, seed: int = 0, num_train: int = NUM_TRAIN, **settings: Any) -> Source:
    fixed = {"augmentation": "none", "loader_workers": 0, "validation_fraction": 0.25}
    written = CASES[name](root, num_train)
    return open_source(DataConfig(name=name, **{**fixed, **written, **settings}), seed=seed)  # type: ignore[arg-type]


def prepared(source: Source, **settings: Any) -> Data:
    """Pixels come back as they are, from 0 to 255."""
    channels, side = source.in_channels, source.config.image_size or SIDE
    return source.prepare(Preprocessing((0.0,) * channels, (1 / 255,) * channels, side), torch.device("cpu"))


def joined(batches: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def content(images: Tensor, labels: Tensor) -> list[tuple[bytes, int]]:
    """Each image and its label, as something that can be compared and counted."""
    return [
        (image.contiguous().round().byte().numpy().tobytes(), int(label))
        for image, label in zip(images, labels, strict=True)
    ]


def splits_of(data: Data) -> dict[str, list[tuple[bytes, int]]]:
    return {split: content(*joined(data.batches(split, batch_size=7))) for split in SPLITS}


def test_every_source_has_a_case() -> None:
    assert set(CASES) >= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEverySource:
    def test_says_what_a_network_needs(self, name: str, tmp_path: Path) -> None:
        source = opened(name, tmp_path)
        data = prepared(source)
        assert source.num_classes == data.num_classes == len(source.class_names) == len(set(source.class_names))
        side = source.config.image_size or SIDE
        for split, num in zip(SPLITS, (data.num_train, data.num_validation, data.num_test), strict=True):
            images, labels = joined(data.batches(split, batch_size=7))
            assert images.shape == (num, source.in_channels, side, side)
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert 0 <= images.min() < 1
            assert 240 <= images.max() <= 255.001
            assert labels.min() >= 0
            assert labels.max() < source.num_classes

    def test_no_image_is_in_two_splits(self, name: str, tmp_path: Path) -> None:
        found = splits_of(prepared(opened(name, tmp_path)))
        pictures = [image for split in found.values() for image, _ in split]
        assert len(set(pictures)) == len(pictures)
        assert all(found.values())

    def test_the_same_seed_gives_the_same_splits_and_another_the_same_test_images(
        self, name: str, tmp_path: Path
    ) -> None:
        first, again, other = (splits_of(prepared(opened(name, tmp_path, seed=seed))) for seed in (0, 0, 1))
        assert first == again
        assert first["test"] == other["test"]
        assert first["validation"] != other["validation"]

    def test_an_epoch_has_every_training_image_once_with_its_label(self, name: str, tmp_path: Path) -> None:
        data = prepared(opened(name, tmp_path))
        epochs = [content(*joined(data.train_batches(batch_size=data.num_train, seed=seed))) for seed in (0, 0, 1)]
        assert epochs[0] == epochs[1]
        assert epochs[0] != epochs[2]
        assert sorted(epochs[0]) == sorted(epochs[2]) == sorted(splits_of(data)["train"])

    @pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
    def test_ranks_together_see_what_one_worker_sees(self, name: str, augmentation: str, tmp_path: Path) -> None:
        data = prepared(opened(name, tmp_path, augmentation=augmentation))
        whole = [content(*batch) for batch in data.train_batches(batch_size=9, seed=5, num_steps=2)]
        parts = [list(data.train_batches(batch_size=9, seed=5, num_steps=2, rank=r, world_size=2)) for r in (0, 1)]
        assert [content(*one) + content(*other) for one, other in zip(*parts, strict=True)] == whole
        ranks = [joined(data.batches("test", batch_size=4, rank=rank, world_size=2)) for rank in (0, 1)]
        assert content(*ranks[0]) + content(*ranks[1]) == splits_of(data)["test"]

    def test_fewer_images_are_a_stratified_part(self, name: str, tmp_path: Path) -> None:
        limits = {"train_images": 12, "validation_images": 6, "test_images": 9}
        data = prepared(opened(name, tmp_path, **limits))
        whole = splits_of(prepared(opened(name, tmp_path)))
        found = splits_of(data)
        assert [len(found[split]) for split in SPLITS] == [12, 6, 9]
        assert all(set(found[split]) <= set(whole[split]) for split in SPLITS)
        _, labels = joined(data.batches("train", batch_size=5, max_images=6))
        counts = torch.bincount(labels, minlength=data.num_classes)
        assert counts[counts > 0].max() - counts[counts > 0].min() <= 1

    def test_its_fingerprint_is_the_same_when_opened_again(self, name: str, tmp_path: Path) -> None:
        first, again = (opened(name, tmp_path).fingerprint() for _ in range(2))
        assert first == again != {}

    def test_a_network_of_other_channels_is_refused(self, name: str, tmp_path: Path) -> None:
        source = opened(name, tmp_path)
        channels = 4 - source.in_channels
        with pytest.raises(
            UserError, match=f"images have {source.in_channels} channels, but the network takes {channels}"
        ):
            source.prepare(Preprocessing((0.0,) * channels, (1.0,) * channels, SIDE), torch.device("cpu"))


@pytest.mark.parametrize("name", WRITTEN)
def test_an_image_more_changes_the_fingerprint(name: str, tmp_path: Path) -> None:
    places = [tmp_path / "one", tmp_path / "other"]
    for place in places:
        place.mkdir()
    fingerprints = [opened(name, place, num_train=NUM_TRAIN + more).fingerprint() for more, place in enumerate(places)]
    assert fingerprints[0] != fingerprints[1]
