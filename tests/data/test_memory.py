from typing import Any

import pytest
import torch
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data import Data, Preprocessing, open_source
from pwfn.data.classes import Classes
from pwfn.data.collection import Collection
from pwfn.data.images import ArrayImages
from pwfn.data.memory import Augmentation
from pwfn.data.roles import Roles
from pwfn.data.source import Source
from pwfn.errors import UserError

CPU = torch.device("cpu")
PLAIN = Preprocessing(mean=(0.0,), std=(1 / 255,), image_size=8)  # pixels come back as they are


def _digits(*, seed: int = 0, preprocessing: Preprocessing = PLAIN, **settings: Any) -> Data:
    settings = {"augmentation": "none", **settings}
    return open_source(DataConfig(name="digits", **settings), seed=seed).prepare(preprocessing, CPU)


def _numbered(side: int = 8, num: int = 40, name: str = "numbers") -> ArrayImages:
    """Images whose every pixel is their row."""
    images = torch.arange(num, dtype=torch.uint8)[:, None, None].expand(num, side, side).contiguous()
    return ArrayImages(name, torch.arange(num) % 4, images)


def _source(pool: ArrayImages, test: ArrayImages, **settings: Any) -> Source:
    config = DataConfig(name="digits", **{"augmentation": "none", **settings})
    classes = Classes(tuple("abcd"), "as given")
    collection = Collection(
        "numbers", Roles("train", None, "test"), {"train": pool, "test": test}, classes, channels=1, is_small=True
    )
    return Source(config, collection, 0)


def _join(batches: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


class TestDigits:
    def test_sizes_and_classes(self) -> None:
        source = open_source(DataConfig(name="digits"), seed=0)
        assert (source.num_classes, source.in_channels, source.in_memory) == (10, 1, True)
        assert source.class_names == tuple("0123456789")
        data = source.prepare(PLAIN, CPU)
        assert (data.num_train, data.num_validation, data.num_test) == (1294, 144, 359)
        images, labels = _join(data.batches("train", batch_size=500))
        assert images.shape == (1294, 1, 8, 8)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert torch.bincount(labels).min() > 120
        assert images.min() == 0
        assert images.max() == pytest.approx(255)

    def test_test_images_do_not_depend_on_the_seed(self) -> None:
        first, second = (_join(_digits(seed=seed).batches("test", batch_size=100)) for seed in (0, 1))
        assert torch.equal(first[0], second[0])
        validation = [_join(_digits(seed=seed).batches("validation", batch_size=100))[0] for seed in (0, 1)]
        assert not torch.equal(*validation)

    def test_test_images_are_stratified(self) -> None:
        _, labels = _join(_digits().batches("test", batch_size=100))
        assert torch.bincount(labels).tolist() == pytest.approx([35.9] * 10, abs=2)


class TestBatches:
    def test_normalised(self) -> None:
        plain, _ = _join(_digits().batches("test", batch_size=100))
        normalised, _ = _join(_digits(preprocessing=Preprocessing((0.3,), (0.4,), 8)).batches("test", batch_size=100))
        torch.testing.assert_close(normalised, (plain / 255 - 0.3) / 0.4)

    def test_training_epoch_holds_each_image_once_in_another_order_each_seed(self) -> None:
        data = _source(_numbered(), _numbered()).prepare(PLAIN, CPU)
        epochs = [_join(data.train_batches(batch_size=6, seed=seed))[0][:, 0, 0, 0].round() for seed in (0, 0, 1)]
        assert data.num_steps(6) == 6
        assert len(set(epochs[0].tolist())) == len(epochs[0]) == 36
        assert torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[0], epochs[2])

    def test_labels_stay_with_their_images(self) -> None:
        data = _source(_numbered(), _numbered()).prepare(PLAIN, CPU)
        epoch = data.train_batches(batch_size=6, seed=0)
        for batches in (epoch, *(data.batches(split, batch_size=7) for split in ("train", "validation", "test"))):
            images, labels = _join(batches)
            assert torch.equal(images[:, 0, 0, 0].round().long() % 4, labels)

    def test_evaluation_is_in_file_order_and_complete(self) -> None:
        data = _source(_numbered(), _numbered()).prepare(PLAIN, CPU)
        rows = {
            split: _join(data.batches(split, batch_size=7))[0][:, 0, 0, 0].round().tolist()
            for split in ("train", "validation", "test")
        }
        assert all(found == sorted(found) for found in rows.values())
        assert sorted(rows["train"] + rows["validation"]) == rows["test"] == list(range(40))

    def test_max_images_are_a_stratified_sample(self) -> None:
        data = _source(_numbered(), _numbered()).prepare(PLAIN, CPU)
        _, labels = _join(data.batches("train", batch_size=3, max_images=12))
        assert torch.bincount(labels).tolist() == [3, 3, 3, 3]

    def test_num_steps_stops_early_and_a_small_set_gives_one_batch(self) -> None:
        data = _source(_numbered(), _numbered()).prepare(PLAIN, CPU)
        whole = list(data.train_batches(batch_size=6, seed=3))
        part = list(data.train_batches(batch_size=6, seed=3, num_steps=2))
        assert len(part) == 2
        assert all(torch.equal(a[0], b[0]) for a, b in zip(part, whole, strict=False))
        assert len(list(data.train_batches(batch_size=6, seed=3, num_steps=99))) == 6
        assert data.num_steps(1000) == 1
        assert [len(labels) for _, labels in data.train_batches(batch_size=1000, seed=3)] == [36]

    @pytest.mark.parametrize("world_size", [2, 3])
    def test_ranks_together_see_what_one_worker_sees(self, world_size: int) -> None:
        data = _digits(augmentation="crop_flip")
        whole = list(data.train_batches(batch_size=50, seed=9, num_steps=3))
        ranks = [
            list(data.train_batches(batch_size=50, seed=9, num_steps=3, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        for step, (images, labels) in enumerate(whole):
            assert torch.equal(torch.cat([batches[step][0] for batches in ranks]), images)
            assert torch.equal(torch.cat([batches[step][1] for batches in ranks]), labels)
        parts = [
            _join(data.batches("test", batch_size=40, max_images=200, rank=rank, world_size=world_size))[0]
            for rank in range(world_size)
        ]
        assert torch.equal(torch.cat(parts), _join(data.batches("test", batch_size=40, max_images=200))[0])

    def test_another_size_is_reached_by_resizing(self) -> None:
        flat = ArrayImages("flat", torch.arange(8) % 4, torch.full((8, 8, 8), 7).byte())
        larger = Preprocessing((0.0,), (1 / 255,), 12, "bilinear")
        data = _source(flat, flat, image_size=12, validation_fraction=0.5).prepare(larger, CPU)
        resized, _ = _join(data.batches("test", batch_size=8))
        assert resized.shape == (8, 1, 12, 12)
        torch.testing.assert_close(resized, torch.full((8, 1, 12, 12), 7.0))

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    @pytest.mark.parametrize("crop", [{}, {"crop_fraction": 0.8}, {"crop_mode": "squash", "interpolation": "bilinear"}])
    def test_the_pixels_held_are_those_of_the_loader(self, split: str, crop: dict[str, Any]) -> None:
        preprocessing = Preprocessing((0.3,), (0.4,), 6, **crop)
        held, loaded = (
            _join(_digits(in_memory=held, image_size=6, loader_workers=0, preprocessing=preprocessing,
                          train_images=50, test_images=50).batches(split, batch_size=32))
            for held in (True, False)
        )  # fmt: skip
        assert torch.equal(held[0], loaded[0])
        assert torch.equal(held[1], loaded[1])


class TestAugmentation:
    IMAGES = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)

    def test_mirrors(self) -> None:
        draws = torch.tensor([[1, 0], [0, 0], [0, 0]])
        augmented = Augmentation(flip=True, max_shift=0).apply(self.IMAGES, draws)
        assert torch.equal(augmented[0], self.IMAGES[0].flip(-1))
        assert torch.equal(augmented[1], self.IMAGES[1])

    def test_shifts_and_fills_with_black(self) -> None:
        draws = torch.tensor([[0, 1], [0, 1], [2, 1]])  # by (-1, +1) pixels; mirrored only
        augmented = Augmentation(flip=True, max_shift=1).apply(self.IMAGES, draws)
        assert torch.equal(augmented[0, :, 1:, :-1], self.IMAGES[0, :, :-1, 1:])
        assert augmented[0, :, 0].eq(0).all()
        assert augmented[0, :, :, -1].eq(0).all()
        assert torch.equal(augmented[1], self.IMAGES[1].flip(-1))

    def test_every_shift_and_both_directions_are_drawn(self) -> None:
        augmentation = Augmentation.from_config(DataConfig(name="digits", augmentation="crop_flip"), 32)
        draws = augmentation.draw(1000, torch.Generator().manual_seed(0))
        assert augmentation.max_shift == 4
        assert [sorted(set(row.tolist())) for row in draws] == [[0, 1], list(range(9)), list(range(9))]

    def test_configuration_chooses(self) -> None:
        plain, flipped = (
            _join(_digits(augmentation=name).train_batches(batch_size=1294, seed=0))[0] for name in ("none", "flip")
        )
        mirrored = (plain.flip(-1) == flipped).flatten(1).all(1)
        assert torch.equal(flipped[~mirrored], plain[~mirrored])
        assert 0.4 < mirrored.float().mean() < 0.6


class TestErrors:
    def test_network_of_another_size(self) -> None:
        message = r"digits: images are 8x8, but the network takes 32x32; set data.image_size to 8 .* or 32 "
        with pytest.raises(UserError, match=message):
            _digits(preprocessing=Preprocessing((0.0,), (1.0,), 32))

    def test_network_of_other_channels(self) -> None:
        with pytest.raises(
            UserError, match=r"digits: images have 1 channels, but the network takes 3; set data.channels=3"
        ):
            _digits(preprocessing=Preprocessing((0.0,) * 3, (1.0,) * 3, 8))

    def test_more_than_fits_in_memory(self) -> None:
        huge = ArrayImages("huge", torch.arange(90_000) % 4, torch.zeros(1, 8, 8).byte().expand(90_000, 8, 8))
        message = (
            r"huge: 180000 images of 224x224 take 8.4 GiB, above the 4 GiB held in memory; set data.in_memory=false"
        )
        with pytest.raises(UserError, match=message):
            _source(huge, huge, image_size=224).prepare(Preprocessing((0.0,), (1.0,), 224), CPU)
