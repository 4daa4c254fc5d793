import gc
import multiprocessing
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data import Data, Preprocessing, open_source
from pwfn.errors import UserError

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cow")
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, image_size=8)


def _fill(folder: Path, per_class: int, classes: tuple[str, ...] = CLASSES) -> None:
    """Images with a gradient to the right, whose green channel is their class and whose blue one their number."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            image = Image.new("RGB", (12 + number, 10), (0, 80 * label, 10 * number))
            image.putdata([(20 * (i % image.width), 80 * label, 10 * number) for i in range(image.width * 10)])
            image.save(folder / name / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    _fill(tmp_path / "train", 8)
    _fill(tmp_path / "val", 4)
    return tmp_path


def _prepare(root: Path, **settings: Any) -> Data:
    settings = {"augmentation": "none", "loader_workers": 0, "validation_fraction": 0.25, **settings}
    return open_source(DataConfig(name="imagefolder", root=str(root), **settings), seed=0).prepare(PLAIN, CPU)


def _join(batches: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def _identify(images: Tensor) -> list[tuple[int, int]]:
    return [(round(float(image[1].mean()) / 80), round(float(image[2].mean()) / 10)) for image in images]


def test_classes_and_splits(root: Path) -> None:
    data = _prepare(root)
    assert (data.num_classes, data.num_train, data.num_validation, data.num_test) == (3, 18, 6, 12)
    found = {split: _join(data.batches(split, batch_size=5)) for split in ("train", "validation", "test")}
    assert all(images.shape[1:] == (3, 8, 8) for images, _ in found.values())
    for images, labels in found.values():
        assert [label for label, _ in _identify(images)] == labels.tolist()
    assert torch.bincount(found["validation"][1]).tolist() == [2, 2, 2]
    pool = _identify(found["train"][0]) + _identify(found["validation"][0])
    assert sorted(pool) == [(label, number) for label in range(3) for number in range(8)]
    assert _identify(found["test"][0]) == [(label, number) for label in range(3) for number in range(4)]


def test_source_knows_what_a_network_needs(root: Path) -> None:
    source = open_source(DataConfig(name="imagefolder", root=str(root)), seed=0)
    assert (source.class_names, source.in_channels, source.in_memory) == (CLASSES, 3, False)


@pytest.mark.parametrize("folder", ["validation", "test"])
def test_other_names_of_the_test_folder(root: Path, folder: str) -> None:
    (root / "val").rename(root / folder)
    assert _prepare(root).num_test == 12


def test_val_may_lack_classes(root: Path) -> None:
    for file in (root / "val" / "ant").iterdir():
        file.unlink()
    (root / "val" / "ant").rmdir()
    _, labels = _join(_prepare(root).batches("test", batch_size=5))
    assert torch.bincount(labels).tolist() == [0, 4, 4]


def test_central_crop(root: Path) -> None:
    whole = open_source(DataConfig(name="imagefolder", root=str(root), loader_workers=0), seed=0)
    cropped = whole.prepare(Preprocessing((0.0,) * 3, (1 / 255,) * 3, 8, crop_fraction=0.5), CPU)
    plain = whole.prepare(PLAIN, CPU)
    spreads = [
        float(_join(data.batches("test", batch_size=5, max_images=3))[0][:, 0].diff(dim=-1).mean())
        for data in (plain, cropped)
    ]
    assert spreads[1] < 0.7 * spreads[0]  # half as much of the gradient on as many pixels


@pytest.mark.parametrize("augmentation", ["flip", "crop_flip"])
def test_epoch_follows_from_its_seed_for_any_number_of_workers_and_ranks(root: Path, augmentation: str) -> None:
    def epoch(seed: int, workers: int = 0, **part: int) -> list[tuple[Tensor, Tensor]]:
        data = _prepare(root, augmentation=augmentation, loader_workers=workers)
        return list(data.train_batches(batch_size=6, seed=seed, **part))

    random_state, torch_state = random.getstate(), torch.get_rng_state()
    first = _join(epoch(1))
    assert random.getstate() == random_state
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.equal(first[0], _join(epoch(1, workers=2))[0])
    assert not torch.equal(first[0], _join(epoch(2))[0])
    ranks = [epoch(1, rank=rank, world_size=2) for rank in range(2)]
    united = _join([batch for pair in zip(*ranks, strict=True) for batch in pair])
    assert torch.equal(united[0], first[0])
    assert torch.equal(united[1], first[1])
    assert [label for label, _ in _identify(first[0])] == first[1].tolist()


def test_augmentations_do_what_they_say(root: Path) -> None:
    plain, flip, crop = (
        _join(_prepare(root, augmentation=name).train_batches(batch_size=18, seed=0))[0]
        for name in ("none", "flip", "crop_flip")
    )
    mirrored = flip[:, 0].diff(dim=-1).mean(dim=(1, 2)) < 0  # plain images brighten to the right
    assert torch.equal(flip[~mirrored], plain[~mirrored])
    assert 3 <= mirrored.sum() <= 15
    changed = (crop != plain).flatten(1).any(1) & (crop != plain.flip(-1)).flatten(1).any(1)
    assert changed.sum() > 12


def test_evaluation_shared_by_ranks(root: Path) -> None:
    data = _prepare(root)
    parts = [_join(data.batches("train", batch_size=4, max_images=11, rank=r, world_size=2))[0] for r in range(2)]
    assert torch.equal(torch.cat(parts), _join(data.batches("train", batch_size=4, max_images=11))[0])


@pytest.fixture
def spawned_workers() -> Iterator[None]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow  # a spawned worker imports all
@pytest.mark.usefixtures("spawned_workers")
def test_spawned_workers_find_torchvision(root: Path) -> None:
    _, labels = _join(_prepare(root, loader_workers=1, augmentation="flip").batches("test", batch_size=6))
    assert torch.bincount(labels).tolist() == [4, 4, 4]


class TestErrors:
    def test_no_train_folder(self, tmp_path: Path) -> None:
        _fill(tmp_path / "val", 1)
        with pytest.raises(
            UserError,
            match=r"data\.root: .* has no split train, training \(found: val\); name it in data\.train_split$",
        ):
            _prepare(tmp_path)

    def test_no_test_folder(self, tmp_path: Path) -> None:
        _fill(tmp_path / "train", 1)
        with pytest.raises(
            UserError, match=r"data\.root: .* has no test images: .*\(found: train\); name it in data\.test_split, or"
        ):
            _prepare(tmp_path)

    def test_no_class_folders(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "empty" / "train").mkdir(parents=True)
        (tmp_path / "empty" / "val").mkdir()
        with pytest.raises(
            UserError, match=r"has no split train, .*; train has no class folders, so its images have no"
        ):
            _prepare(tmp_path / "empty")

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_no_images(self, root: Path, part: str) -> None:
        for file in (root / part).rglob("*.png"):
            file.rename(file.with_suffix(".txt"))
        with pytest.raises(
            UserError,
            match=rf"{part}: its class folders hold no image \(\.avif, .*; left out: \d+ files of suffix \.txt",
        ):
            _prepare(root)

    def test_unknown_class_in_val(self, root: Path) -> None:
        (root / "val" / "cow").rename(root / "val" / "cows")
        message = r"val: class folder cows is not one of the 3 in .*train; did you mean cow\?"
        with pytest.raises(UserError, match=message):
            _prepare(root)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_broken_image_is_named(self, root: Path, workers: int) -> None:
        (root / "val" / "bee" / "2.png").write_bytes(b"no image")
        data = _prepare(root, loader_workers=workers)
        with pytest.raises(
            UserError,
            match=r"^.*val/bee/2\.png: not a readable image: UnidentifiedImageError; --check-data lists all, ",
        ):
            list(data.batches("test", batch_size=3))

    def test_network_of_other_channels(self, root: Path) -> None:
        source = open_source(DataConfig(name="imagefolder", root=str(root)), seed=0)
        with pytest.raises(UserError, match="train: images have 3 channels, but the network takes 1"):
            source.prepare(Preprocessing((0.0,), (1.0,), 8), CPU)


def test_workers_leave_it_to_their_parent_what_a_signal_means(root: Path) -> None:
    """Ctrl-C and a batch system's SIGTERM reach them too; the round goes on, and in the end they are gone."""
    data = _prepare(root, loader_workers=2)
    expected = list(data.batches("train", batch_size=2))
    batches = data.batches("train", batch_size=2)
    found = [next(batches)]
    workers = [str(worker.pid) for worker in multiprocessing.active_children()]
    assert len(workers) == 2
    for name in ("INT", "TERM"):
        subprocess.run(["kill", "-s", name, *workers], check=True)  # not from their parent
    found += batches
    assert all(
        torch.equal(one, two) for pair in zip(found, expected, strict=True) for one, two in zip(*pair, strict=True)
    )
    del batches, data
    gc.collect()
    assert not multiprocessing.active_children()


def test_the_same_workers_serve_all_epochs_and_splits(root: Path) -> None:
    alone, data = _prepare(root), _prepare(root, loader_workers=2)
    served = []

    def check(ours: Iterator[tuple[Tensor, Tensor]], theirs: Iterator[tuple[Tensor, Tensor]]) -> None:
        assert torch.equal(_join(ours)[0], _join(theirs)[0])
        served.append({child.pid for child in multiprocessing.active_children()})

    for seed in (1, 2):
        check(data.train_batches(batch_size=4, seed=seed), alone.train_batches(batch_size=4, seed=seed))
        check(data.batches("test", batch_size=3), alone.batches("test", batch_size=3))
    assert len(served[0]) == 2
    assert all(pids == served[0] for pids in served)

    left = data.train_batches(batch_size=4, seed=3)
    next(left)
    check(data.batches("test", batch_size=3), alone.batches("test", batch_size=3))  # beside it: other workers
    del left
    check(data.train_batches(batch_size=4, seed=4), alone.train_batches(batch_size=4, seed=4))
    assert len(served[-1]) == 2
    del data
    gc.collect()
    assert not multiprocessing.active_children()
