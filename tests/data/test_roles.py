"""Which split serves for what: by its name, or by a field; never the test images for the search."""

from pathlib import Path

import pytest
from image_sets import fill, opened

from pwfn.config import DataConfig
from pwfn.data.roles import Roles, choose_roles
from pwfn.errors import UserError


def _choose(found: list[str], **fields: object) -> Roles:
    return choose_roles(DataConfig(name="parquet", root="data", **fields), found, "data")


@pytest.mark.parametrize(
    ("found", "fields", "expected"),
    [
        (["train", "test"], {}, ("train", None, "test")),
        (["train", "val"], {}, ("train", None, "val")),
        (["train", "val", "test"], {}, ("train", "val", "test")),
        (["Train", "valid", "testing"], {}, ("Train", "valid", "testing")),
        (["training", "validation"], {}, ("training", None, "validation")),
        (["train", "validation", "test"], {"test_split": "validation"}, ("train", None, "validation")),
        (["train", "validation", "test"], {"validation_split": "train"}, ("train", None, "test")),
        (["train", "val"], {"validation_split": "val", "test_fraction": 0.2}, ("train", "val", None)),
        (["train", "validation"], {"test_fraction": 0.2}, ("train", "validation", None)),
        (["train"], {"test_fraction": 0.2}, ("train", None, None)),
        (["a", "b", "c"], {"train_split": "a", "test_split": "c"}, ("a", None, "c")),
        (["train", "val", "valid", "test"], {"validation_split": "val"}, ("train", "val", "test")),
    ],
)  # fmt: skip
def test_roles(found: list[str], fields: dict[str, object], expected: tuple[str, str | None, str | None]) -> None:
    roles = _choose(found, **fields)
    assert (roles.train, roles.validation, roles.test) == expected


@pytest.mark.parametrize(
    ("found", "fields", "message"),
    [
        (["cats", "dogs"], {}, r"has no split train, training \(found: cats, dogs\); name it in data.train_split"),
        (["train"], {}, r"has no test images: .*name it in data.test_split, or hold some out with data.test_fraction"),
        (["train", "val", "valid", "test"], {}, r"data.validation_split: data has val, valid; name the one"),
        (["train", "test"], {"test_split": "tset"}, r"data.test_split: data has no split 'tset' .*did you mean test"),
        (["train", "val"], {"validation_split": "val"}, "has no test images"),
    ],
)
def test_what_is_not_plain_is_refused(found: list[str], fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _choose(found, **fields)


def test_one_split_for_validation_and_test_is_refused() -> None:
    with pytest.raises(ValueError, match="the search would see the test images"):
        _choose(["train", "val"], validation_split="val", test_split="val")


def test_all_three_folders_serve_and_test_stays_test(tmp_path: Path) -> None:
    for part, num in (("train", 5), ("val", 3), ("test", 2)):
        fill(tmp_path / part, ("ant", "bee"), num)
    source = opened(tmp_path, "imagefolder")
    splits = source.splits
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 6, 4)
    folders = {name: {Path(source.images.where(row)).parents[1].name for row in rows.tolist()}
               for name, rows in vars(splits).items()}  # fmt: skip
    assert folders == {"train": {"train"}, "validation": {"val"}, "test": {"test"}}
    assert source.collection.roles.describe(source.config, 0.2) == (
        "train from train, validation from the split val, test from the split test"
    )


def test_a_folder_without_classes_is_no_split_and_that_is_said(tmp_path: Path) -> None:
    """Test images without labels beside the others, as competitions give them."""
    fill(tmp_path / "train", ("ant", "bee"))
    fill(tmp_path, ("test",))
    with pytest.raises(UserError, match=r"has no test images: .*; test has no class folders, so its images have no"):
        opened(tmp_path, "imagefolder")
    fill(tmp_path / "val", ("ant", "bee"))
    found = opened(tmp_path, "imagefolder").collection
    assert (found.roles.validation, found.roles.test) == (None, "val")
    assert found.notes == ("the folder test has no class folders and is left out",)
    with pytest.raises(
        UserError, match=r"^data\.test_split: .* has no split 'test' \(found: train, val\); test has no"
    ):
        opened(tmp_path, "imagefolder", test_split="test")


def test_a_folder_without_splits_names_what_is_there(tmp_path: Path) -> None:
    fill(tmp_path, ("ant", "bee"))
    with pytest.raises(UserError, match=r"\(found: ant, bee\); .* set data\.train_split=\. data\.test_fraction=0\.2$"):
        opened(tmp_path, "imagefolder")
    source = opened(tmp_path, "imagefolder", train_split=".", test_fraction=0.25)
    assert source.class_names == ("ant", "bee")
    assert len(source.splits.test) == 2
