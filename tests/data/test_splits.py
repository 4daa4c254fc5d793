import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pwfn.config import DataConfig
from pwfn.data.splits import draw_splits, stratified_order
from pwfn.errors import UserError


def _draw(pool: Tensor, seed: int = 0, num_test: int = 10, **settings: object):
    config = DataConfig(name="parquet", root="data", **settings)
    return draw_splits(config, pool, torch.arange(num_test) % 2, seed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**31))
def test_every_prefix_has_the_classes_shares(labels: list[int], seed: int) -> None:
    classes = torch.tensor(labels)
    order = stratified_order(classes, torch.Generator().manual_seed(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    shares = torch.bincount(classes, minlength=5) / len(labels)
    for length in range(1, len(labels) + 1):
        found = torch.bincount(classes[order[:length]], minlength=5)
        assert ((found - shares * length).abs() <= 2).all()


def test_equal_classes_are_split_equally_and_at_random() -> None:
    labels = torch.arange(1000) % 10
    orders = [stratified_order(labels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.bincount(labels[orders[0][:100]]).tolist() == [10] * 10


def test_splits_are_disjoint_and_complete() -> None:
    splits = _draw(torch.arange(100) % 3, validation_fraction=0.25)
    assert len(splits.validation) == 25
    assert sorted(torch.cat([splits.train, splits.validation]).tolist()) == list(range(100))
    assert sorted(splits.test.tolist()) == list(range(100, 110))  # they come after the training images


def test_official_validation_images_are_all_that_the_search_sees() -> None:
    config = DataConfig(name="parquet", root="data", validation_fraction=0.5)
    splits = draw_splits(config, torch.arange(20) % 2, torch.arange(6) % 2, 0, torch.arange(4) % 2)
    assert [sorted(rows.tolist()) for rows in (splits.train, splits.test, splits.validation)] == [
        list(range(20)), list(range(20, 26)), list(range(26, 30))
    ]  # fmt: skip


def test_test_images_that_are_held_out_are_the_same_for_every_seed() -> None:
    config = DataConfig(name="parquet", root="data", validation_fraction=0.25)
    labels = torch.arange(100) % 2
    one, other = (draw_splits(config, labels, None, seed, test_fraction=0.2) for seed in (1, 2))
    assert sorted(one.test.tolist()) == sorted(other.test.tolist())
    assert sorted(torch.cat([one.train, one.validation, one.test]).tolist()) == list(range(100))
    assert (len(one.test), len(one.validation)) == (20, 20)
    assert not torch.equal(one.validation.sort().values, other.validation.sort().values)


def test_limits_take_a_part_of_the_same_split() -> None:
    labels = torch.arange(100) % 3
    whole = _draw(labels)
    part = _draw(labels, train_images=12, validation_images=5, test_images=4)
    assert torch.equal(part.train, whole.train[:12])
    assert torch.equal(part.validation, whole.validation[:5])
    assert torch.equal(part.test, whole.test[:4])
    assert torch.bincount(labels[part.train]).tolist() == [4, 4, 4]


def test_split_seed_takes_the_place_of_the_studys() -> None:
    labels = torch.arange(100) % 3
    assert torch.equal(_draw(labels, seed=5, split_seed=1).train, _draw(labels, seed=1).train)
    assert not torch.equal(_draw(labels, seed=5).train, _draw(labels, seed=1).train)


def test_a_class_may_be_missing_from_validation() -> None:
    labels = torch.tensor([0] * 20 + [1])
    splits = _draw(labels)
    assert labels[splits.validation].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("num_pool", "fraction", "num_test", "message"),
    [
        (10, 0.01, 10, "data.validation_fraction=0.01 of 10 training images leaves none for validation; raise"),
        (10, 0.99, 10, "data.validation_fraction=0.99 of 10 training images leaves none for training; lower"),
        (10, 0.5, 0, "data.root: there are no test images in data"),
    ],
)
def test_an_empty_split_is_refused(num_pool: int, fraction: float, num_test: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _draw(torch.zeros(num_pool, dtype=torch.int64), num_test=num_test, validation_fraction=fraction)
