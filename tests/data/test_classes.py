"""Which class has which number, and what is refused rather than guessed."""

import json
from pathlib import Path

import pytest
import torch
from image_sets import fill, flat, opened, write_parquet

from pwfn.data.classes import other_names
from pwfn.errors import UserError

NUMBERED = tuple(range(1, 12))
LEXICAL = ("1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        fill(tmp_path / part, NUMBERED)
    return tmp_path


def test_both_orders_are_known_by_name(numbered: Path) -> None:
    assert opened(numbered, "imagefolder").class_names == LEXICAL
    natural = opened(numbered, "imagefolder", class_order="natural")
    assert natural.class_names == tuple(map(str, NUMBERED))
    for source in (natural, opened(numbered, "imagefolder", class_order="lexical")):
        for row in range(len(source.images)):  # the label's name is the folder's
            folder = Path(source.images.where(row)).parent.name
            assert source.class_names[int(source.images.labels[row])] == folder
        assert not source.collection.classes.is_open
    assert opened(numbered, "imagefolder").collection.classes.is_open


def test_the_natural_order_is_timms(numbered: Path) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    source = opened(numbered, "imagefolder", class_order="natural")
    assert source.collection.classes.number == ReaderImageFolder(str(numbered / "train")).class_to_idx


def test_digits_that_are_no_decimal_ones_sort_as_letters(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part, ("2²", "10²"))
    assert opened(tmp_path, "imagefolder").class_names == ("10²", "2²")
    assert opened(tmp_path, "imagefolder", class_order="natural").class_names == ("2²", "10²")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.txt", "\n".join(reversed(LEXICAL)) + "\nnobody\n"),
        ("map.json", json.dumps([*reversed(LEXICAL), "nobody"])),
        ("map.json", json.dumps({name: number for number, name in enumerate([*reversed(LEXICAL), "nobody"])})),
    ],
)
def test_a_class_map_gives_the_numbers_and_may_name_more(numbered: Path, name: str, content: str) -> None:
    (numbered / name).write_text(content)
    source = opened(numbered, "imagefolder", class_map=str(numbered / name))
    assert source.class_names == (*reversed(LEXICAL), "nobody")
    assert source.num_classes == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("map.txt", "1\n2\n", "lacks the class '10' of"),
        ("map.json", "[1, 2]", "neither a list of names nor an object"),
        ("map.json", "{", "cannot be read"),
        ("map.json", '{"1": 0, "2": 2}', r"its numbers are not 0\.\.1, each once"),
        ("map.txt", "1\n1\n", "2 lines, but 1 different names"),
        ("map.pkl", "", r"suffix '\.pkl'; allowed are \.txt .* and \.json"),
        ("other.txt", None, "cannot be read"),
    ],
)
def test_a_class_map_that_cannot_be_used(numbered: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (numbered / name).write_text(content)
    with pytest.raises(UserError, match=f"data.class_map: .*{message}"):
        opened(numbered, "imagefolder", class_map=str(numbered / name))


def test_order_and_map_are_two_orders() -> None:
    with pytest.raises(ValueError, match="class_order and class_map are two orders"):
        opened(Path("x"), class_order="natural", class_map="map.txt")


def test_hidden_and_system_folders_are_no_classes_and_are_counted(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part, ("ant", "bee"))
        fill(tmp_path / part, (".ipynb_checkpoints", "__MACOSX", "@eaDir"))
        fill(tmp_path / part / "ant", (".ipynb_checkpoints",))
        (tmp_path / part / "ant" / "._0.png").write_bytes(b"no image")
        (tmp_path / part / "notes.txt").write_text("")
    source = opened(tmp_path, "imagefolder")
    assert source.class_names == ("ant", "bee")
    assert torch.bincount(source.images.labels).tolist() == [8, 8]
    assert source.collection.skipped["hidden or system files and folders"] == 10
    assert source.collection.skipped["files beside the class folders"] == 2


def test_a_link_to_a_folder_that_it_lies_in_is_not_followed(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part, ("ant", "bee"))
    (tmp_path / "train" / "ant" / "again").symlink_to("..")
    (tmp_path / "train" / "bee").rename(tmp_path / "elsewhere")
    (tmp_path / "train" / "bee").symlink_to(tmp_path / "elsewhere")
    source = opened(tmp_path, "imagefolder")
    assert torch.bincount(source.images.labels).tolist() == [8, 8]
    assert source.collection.skipped["links to a folder that they lie in"] == 1
    (tmp_path / "train" / "bee" / "circle").symlink_to("circle")
    with pytest.raises(UserError, match=r"^data\.root: .*circle cannot be read: Too many levels of symbolic links$"):
        opened(tmp_path, "imagefolder")


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".jp2", ".jfif", ".JPEG", ".webp", ".tif"])
def test_suffixes_that_are_images(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    for part in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / part / name / f"{number}{suffix}")
    source = opened(tmp_path, "imagefolder")
    assert len(source.images) == 16
    assert source.images.picture(0).size == (8, 8)


def test_a_class_without_images_is_refused_and_what_was_left_out_is_said(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part, ("ant", "bee"))
        fill(tmp_path / part, ("cow",), suffix=".heic")
    message = r"1 of 3 classes have no training image \(cow\); remove them, or .*left out: 8 files of suffix \.heic"
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "imagefolder")


def test_nested_folders_are_one_class_which_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part / "animal", ("cat", "dog"))
    message = r"a single class \(animal\), so .*if those are the classes, set data\.train_split=train/animal"
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "imagefolder")
    source = opened(tmp_path, "imagefolder", train_split="train/animal", test_split="val/animal")
    assert source.class_names == ("cat", "dog")


def test_nested_folders_among_several_classes_are_stated(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part / "animal", ("cat", "dog"))
        fill(tmp_path / part, ("plant",))
    [note] = opened(tmp_path, "imagefolder").collection.notes
    assert note == "1 class folders have folders in them, whose images count for them"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3] * 4, "the labels have a gap .the first is 1; 3 different ones, so 0..2 is expected"),
        ([0, 1, 70000] * 4, "the labels have a gap .1 to 70000; 3 different ones"),
        ([0, 1, -5] * 4, "the labels have a gap .the first is -5"),
        ([0] * 12, r"a single class \(0\)"),
    ],
)
def test_numbers_with_a_gap(tmp_path: Path, labels: list[int], message: str) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", [flat(row) for row in range(12)], labels)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_lists_of_names_are_compared_by_name() -> None:
    assert other_names(("a", "b"), ("a", "b")) is None
    assert other_names(("a", "b"), ("b", "a")) == "the same 2 names in another order, class 0 is 'b' and 'a'"
    assert other_names(("a", "b"), ("a", "c")) == "class 1 is 'c' and 'b'"
    assert other_names(("a", "b"), ("a",)) == "1 classes (a) and 2 (a, b)"
