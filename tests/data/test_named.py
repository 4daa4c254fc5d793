from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from pwfn.config import DataConfig
from pwfn.data import Preprocessing, Source, open_source
from pwfn.data.named import SETS
from pwfn.errors import UserError


def _open(root: Path, dataset: str) -> Source:
    config = DataConfig(name="torchvision", root=str(root), dataset=dataset, augmentation="none", loader_workers=0)
    return open_source(config, seed=0)


def _write_idx(path: Path, array: Any) -> None:
    """MNIST's own format: type and number of dimensions, their sizes, then bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, num in (("train", 50), ("t10k", 20)):
        rows = np.arange(num)
        _write_idx(raw / f"{part}-images-idx3-ubyte", np.broadcast_to(rows[:, None, None], (num, 28, 28)))
        _write_idx(raw / f"{part}-labels-idx1-ubyte", rows % 10)
    return tmp_path


def test_set_held_in_memory(mnist: Path) -> None:
    source = _open(mnist, "MNIST")
    assert (source.num_classes, source.in_channels, source.in_memory) == (10, 1, True)
    assert source.class_names[3] == "3 - three"
    data = source.prepare(Preprocessing((0.0,), (1 / 255,), 28), torch.device("cpu"))
    assert (data.num_train, data.num_validation, data.num_test) == (45, 5, 20)
    images, labels = next(data.batches("test", batch_size=20))
    assert images[:, 0, 5, 5].round().tolist() == list(range(20))
    assert labels.tolist() == [row % 10 for row in range(20)]


def test_set_of_image_files(tmp_path: Path) -> None:
    for split, num in (("train", 6), ("valid", 1), ("test", 2)):
        for label, country in enumerate(("AD", "AE")):
            (tmp_path / "country211" / split / country).mkdir(parents=True)
            for number in range(num):
                image = Image.new("RGB", (20 + number, 16), (120 * label, 0, 0))
                image.save(tmp_path / "country211" / split / country / f"{number}.png")
    source = _open(tmp_path, "Country211")
    assert (source.class_names, source.in_channels, source.in_memory) == (("AD", "AE"), 3, False)
    data = source.prepare(Preprocessing((0.0,) * 3, (1 / 255,) * 3, 8), torch.device("cpu"))
    images, labels = next(data.batches("test", batch_size=4))
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[:, 0].mean(dim=(1, 2)).round().tolist() == [0, 0, 120, 120]


@pytest.mark.parametrize("name", sorted(set(SETS) - {"FakeData", "PCAM"}))
def test_missing_data_says_how_to_fetch_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.root: {name} \(.*\) .*; (fetch|put|get it)") as caught:
        _open(tmp_path, name)
    assert "\n" not in str(caught.value)
    assert f"{name}('{tmp_path}', " in str(caught.value) or name == "ImageNet"


@pytest.mark.parametrize(("name", "hint"), [("CIFAR", "CIFAR10"), ("Mnist", "MNIST"), ("CocoDetection", None)])
def test_unknown_set(tmp_path: Path, name: str, hint: str | None) -> None:
    end = rf"; did you mean .*\b{hint}\b.*\?$" if hint else ""
    with pytest.raises(
        UserError, match=rf"data\.dataset: '{name}' is not one of CIFAR10, CIFAR100, .*USPS; read .*{end}"
    ):
        _open(tmp_path, name)


def test_fake_data_and_a_drawn_test_split() -> None:
    source = open_source(DataConfig(name="torchvision", dataset="FakeData/100", validation_fraction=0.2), seed=0)
    assert (source.num_classes, source.in_channels) == (10, 3)
    assert source.collection.roles.test is None
    assert source.images.picture(3).size == (224, 224)
    assert len(source.images) == 100


def test_a_set_without_test_images_of_its_own(tmp_path: Path) -> None:
    """EuroSAT, Caltech101 and SUN397 come whole: a fifth is held out, the same for every seed."""
    for label, name in enumerate(("AnnualCrop", "Forest")):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (64, 64), (100 * label, 0, 0)).save(tmp_path / "eurosat" / "2750" / name / f"{number}.jpg")
    first, second = (
        open_source(DataConfig(name="torchvision", dataset="EuroSAT", root=str(tmp_path)), seed=seed) for seed in (0, 1)
    )
    assert len(first.splits.test) == 4
    assert sorted(first.splits.test.tolist()) == sorted(second.splits.test.tolist())
    assert "20% of train, drawn" in first.collection.roles.describe(first.config, first.test_fraction)


def _paint(file: Path, level: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (level, 0, 0)).save(file)


def _lay_out(name: str, root: Path) -> None:
    """Write two classes of ten images as torchvision looks for them."""
    if name == "Caltech101":
        for label, kind in enumerate(("ant", "yin_yang")):
            for number in range(1, 11):
                _paint(root / f"caltech101/101_ObjectCategories/{kind}/image_{number:04}.jpg", 100 * label)
        (root / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir()
        (root / "caltech101/Annotations").mkdir()
    elif name == "Caltech256":
        for label, kind in enumerate(("001.ak47", "002.american-flag")):
            for number in range(1, 11):
                _paint(root / f"caltech256/256_ObjectCategories/{kind}/{kind[:3]}_{number:04}.jpg", 100 * label)
    else:
        for label, kind in enumerate(("abbey", "zoo")):
            for number in range(10):
                _paint(root / f"SUN397/{kind[0]}/{kind}/sun_{number}.jpg", 100 * label)
        (root / "SUN397/ClassName.txt").write_text("/a/abbey\n/z/zoo\n")


@pytest.mark.parametrize("name", ["Caltech101", "Caltech256", "SUN397"])
def test_sets_of_image_files_without_splits(tmp_path: Path, name: str) -> None:
    _lay_out(name, tmp_path)
    source = _open(tmp_path, name)
    assert (source.num_classes, source.in_channels, source.in_memory) == (2, 3, False)
    assert torch.bincount(source.images.labels).tolist() == [10, 10]
    assert len(source.splits.test) == 4
    levels = [source.images.picture(row).getpixel((5, 5))[0] for row in range(20)]
    assert [round(level / 100) for level in levels] == source.images.labels.tolist()


def test_qmnist_has_the_class_among_its_labels(tmp_path: Path) -> None:
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, num in (("train", 30), ("test", 20)):
        _write_idx(raw / f"qmnist-{part}-images-idx3-ubyte", np.zeros((num, 28, 28)))
        labels = np.zeros((num, 8), ">i4")
        labels[:, 0] = np.arange(num) % 10
        header = bytes([0, 0, 12, 2]) + np.array(labels.shape, ">i4").tobytes()
        (raw / f"qmnist-{part}-labels-idx2-int").write_bytes(header + labels.tobytes())
    source = _open(tmp_path, "QMNIST")
    assert (source.num_classes, source.in_channels, source.in_memory) == (10, 1, True)
    assert len(source.splits.test) == 20
    assert source.images.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.skipif(find_spec("h5py") is not None, reason="h5py is there")
def test_pcam_needs_h5py_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torchvision reads PCAM with h5py, which is not installed; pip install h5py$"):
        _open(tmp_path, "PCAM")


@pytest.mark.skipif(find_spec("h5py") is None, reason="needs h5py, which is no dependency")
def test_pcam(tmp_path: Path) -> None:
    import h5py

    (tmp_path / "pcam").mkdir()
    for part, num in (("train", 8), ("valid", 4), ("test", 6)):
        stem = f"{tmp_path}/pcam/camelyonpatch_level_2_split_{part}"
        labels = np.arange(num) % 2
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = np.broadcast_to(100 * labels[:, None, None, None], (num, 96, 96, 3)).astype(np.uint8)
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = labels.reshape(num, 1, 1, 1)
    source = _open(tmp_path, "PCAM")
    assert (source.num_classes, source.in_channels, source.in_memory) == (2, 3, False)
    assert [len(rows) for rows in vars(source.splits).values()] == [8, 4, 6]
    levels = [source.images.picture(row).getpixel((5, 5))[0] // 100 for row in range(18)]
    assert levels == source.images.labels.tolist()
    assert source.fingerprint() == _open(tmp_path, "PCAM").fingerprint()


@pytest.mark.parametrize(("variant", "size"), [("", "large"), ("/small", "256")])
def test_places365(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, size: str) -> None:
    """torchvision knows its lists of a million files by their MD5."""
    lists = {name: (file, None) for name, (file, _) in datasets.Places365._FILE_LIST_META.items()}
    monkeypatch.setattr(datasets.Places365, "_FILE_LIST_META", lists)
    monkeypatch.setattr(datasets.Places365, "_CATEGORIES_META", ("categories_places365.txt", None))
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/z/zoo 1\n")
    for part, folder, num in (("train_standard", f"data_{size}_standard", 20), ("val", f"val_{size}", 6)):
        lines = []
        for row in range(num):
            _paint(tmp_path / folder / f"{row}.png", 100 * (row % 2))
            lines.append(f"/{row}.png {row % 2}\n")
        (tmp_path / f"places365_{part}.txt").write_text("".join(lines))
    source = _open(tmp_path, f"Places365{variant}")
    assert source.class_names == ("/a/airfield", "/z/zoo")
    assert [len(rows) for rows in vars(source.splits).values()] == [18, 2, 6]
    levels = [source.images.picture(row).getpixel((5, 5))[0] // 100 for row in range(26)]
    assert levels == source.images.labels.tolist()
    (tmp_path / f"val_{size}" / "3.png").unlink()
    with pytest.raises(UserError, match=r"val_\w+/3\.png cannot be read: No such file"):
        source.fingerprint()


@pytest.mark.parametrize(("variant", "classes"), [("letters", 26), ("digits", 10), ("", 47)])
def test_variants_of_emnist(tmp_path: Path, variant: str, classes: int) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    first = 1 if variant == "letters" else 0
    for part in ("train", "test"):
        labels = np.arange(first, classes + first).repeat(4)
        stem = f"emnist-{variant or 'balanced'}-{part}"
        _write_idx(raw / f"{stem}-images-idx3-ubyte", np.zeros((len(labels), 28, 28)))
        _write_idx(raw / f"{stem}-labels-idx1-ubyte", labels)
    source = _open(tmp_path, f"EMNIST/{variant}" if variant else "EMNIST")
    assert source.num_classes == classes
    assert source.class_names[0] == ("a" if variant == "letters" else "0")
    assert torch.bincount(source.images.labels).tolist() == [8] * classes


def test_an_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"EMNIST has no variant 'words'; it has balanced, byclass"):
        _open(tmp_path, "EMNIST/words")
    with pytest.raises(UserError, match=r"MNIST has no variant 'x'; it has none"):
        _open(tmp_path, "MNIST/x")
