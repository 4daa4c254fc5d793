"""Data as Hugging Face's `datasets` writes and reads it: Parquet in any layout, WebDataset, saved sets."""

import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_sets import flat, opened, png, table, write_parquet
from PIL import Image

from pwfn.config import DataConfig
from pwfn.data import Data, Preprocessing, Source, open_source
from pwfn.data.hub import check_shards, gaps, split_of
from pwfn.errors import UserError

CPU = torch.device("cpu")
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, image_size=4)
NAMES = ("cat", "dog")
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
IMAGES = [flat(row) for row in range(40)]
LABELS = [row % 2 for row in range(40)]


def _write(root: Path, layout: tuple[str, ...] = ("train.parquet", "test.parquet"), **settings: Any) -> Path:
    for path in layout:
        write_parquet(root / path, IMAGES, LABELS, **{"features": FEATURES, **settings})
    return root


def _rows(data: Data, split: str) -> list[int]:
    """Read a split's images, whose grey level is their row, and compare the labels."""
    found = [
        (images[:, 0, 0, 0].round().int().tolist(), labels.tolist())
        for images, labels in data.batches(split, batch_size=8)
    ]
    rows, labels = [row for part, _ in found for row in part], [label for _, part in found for label in part]
    assert labels == [row % 2 for row in rows]
    return rows


def _check(source: Source, num: int = 40) -> None:
    data = source.prepare(PLAIN, CPU)
    assert _rows(data, "test") == list(range(num))
    assert sorted(_rows(data, "train") + _rows(data, "validation")) == list(range(num))


@pytest.mark.parametrize(
    "layout",
    [
        ("train.parquet", "test.parquet"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train-00000-of-00001-ab12cd34.parquet", "validation-00000-of-00001-ab12cd34.parquet"),
        ("pets-train.parquet", "pets-test.parquet"),
    ],
)
def test_layouts(tmp_path: Path, layout: tuple[str, ...]) -> None:
    source = opened(_write(tmp_path, layout))
    assert (source.class_names, source.in_channels, source.in_memory) == (NAMES, 3, True)
    _check(source)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.parquet", "train"),
        ("data/validation-00000-of-00002.parquet", "validation"),
        ("cifar10-test.parquet", "test"),
        ("test/0000.parquet", "test"),
        ("shard-000012.tar", "shard"),
        ("train-000012.tar", "train"),
        ("imagenet-val-0001.tar", "val"),
        ("val/imagenet-0001.tar", "val"),
        ("0001.tar", "train"),
        ("holdout.parquet", "holdout"),
        ("train/part-00000-ab12-c000.snappy.parquet", "train"),
        ("train/label=cat/part-0.parquet", "train"),
        ("my-fold.parquet", "my_fold"),
    ],
)
def test_split_that_a_file_is_named_after(path: str, split: str) -> None:
    assert split_of(path) == split


def test_an_official_validation_split_beside_a_test_split(tmp_path: Path) -> None:
    _write(
        tmp_path,
        (
            "data/train-00000-of-00001.parquet",
            "data/validation-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
        ),
    )
    source = opened(tmp_path)
    assert (source.collection.roles.validation, source.collection.roles.test) == ("validation", "test")
    assert [len(rows) for rows in vars(source.splits).values()] == [40, 40, 40]
    other = opened(tmp_path, test_split="validation")
    assert (other.collection.roles.validation, other.collection.roles.test) == (None, "validation")


def test_a_test_split_without_labels_is_left_out_and_validation_is_test(tmp_path: Path) -> None:
    """ImageNet-1k on the hub has -1 for every test image."""
    _write(tmp_path, ("train.parquet", "validation.parquet"))
    write_parquet(tmp_path / "test.parquet", IMAGES, [-1] * 40, features=FEATURES)
    source = opened(tmp_path)
    assert (source.collection.roles.validation, source.collection.roles.test) == (None, "validation")
    assert "the split test has no labels and is left out" in source.collection.notes
    _check(source)


@pytest.mark.parametrize("missing", ["train-00000-of-00002", "train-00001-of-00002"])
def test_a_missing_shard_is_named(tmp_path: Path, missing: str) -> None:
    _write(tmp_path, ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"))
    (tmp_path / f"{missing}.parquet").unlink()
    with pytest.raises(UserError, match=rf"1 of 2 shards are missing, the first is .*{missing}\.parquet"):
        opened(tmp_path)


def test_shards_with_hashes_are_counted_as_well(tmp_path: Path) -> None:
    """`datasets` gave each shard a hash of its own."""
    first, second = "train-00000-of-00002-0123456789abcdef", "train-00001-of-00002-fedcba9876543210"
    _write(tmp_path, (f"{first}.parquet", f"{second}.parquet", "test.parquet"))
    assert len(opened(tmp_path).splits.train) == 60
    (tmp_path / f"{second}.parquet").rename(tmp_path / "train-00000-of-00002-fedcba9876543210.parquet")
    with pytest.raises(UserError, match=r"train-00000-of-00002-0\w+\.parquet and .* are the same shard; remove one$"):
        opened(tmp_path)
    (tmp_path / f"{first}.parquet").unlink()
    with pytest.raises(UserError, match=r"1 of 2 shards are missing, the first is .*train-00001-of-00002\.parquet$"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "layout",
    [
        ("train.parquet", "train-00000-of-00001.parquet", "test.parquet"),
        ("en/train-00000-of-00001.parquet", "de/train-00000-of-00001.parquet", "test.parquet"),
    ],
)
def test_images_that_are_there_twice_are_refused(tmp_path: Path, layout: tuple[str, ...]) -> None:
    """Joined, the validation images would be training images as well."""
    with pytest.raises(UserError, match=r"are both of the split train, but are no shards of one set; remove what is"):
        opened(_write(tmp_path, layout))


def test_numbers_that_are_missing_among_files_without_a_count_are_said() -> None:
    files = [f"/data/train-{number:06d}.tar" for number in (0, 1, 4, 5)]
    assert gaps([*files, "/data/test-00000-of-00002.parquet"]) == [
        "2 files are missing between the first and the last number, such as train-000002.tar"
    ]
    assert not gaps(["/data/20240101.tar", "/data/20250101.tar"])  # they count something else


def test_class_folders_that_datasets_numbers_are_known_by_name(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("1", "2", "10"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(8):
                (tmp_path / part / name / f"{number}.png").write_bytes(png(np.full((4, 4, 3), (int(name), 0, 0))))
    lexical = opened(tmp_path, "huggingface")
    assert lexical.class_names == ("1", "10", "2")
    assert lexical.collection.classes.is_open
    natural = opened(tmp_path, "huggingface", class_order="natural")
    assert natural.class_names == ("1", "2", "10")
    for row in range(len(natural.images)):
        red, _, _ = natural.images.picture(row).getpixel((0, 0))
        assert natural.class_names[int(natural.images.labels[row])] == str(red)
    assert lexical.in_channels == 3  # their bytes are in files of their own


def test_an_order_of_names_where_classes_are_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.class_order: .* gives its classes by number, .* data\.class_map$"):
        opened(_write(tmp_path), class_order="natural")


def test_shards_are_complete_by_their_own_count() -> None:
    check_shards([f"data/train-{number:05d}-of-00003.parquet" for number in range(3)] + ["data/test.parquet"])
    with pytest.raises(UserError, match=r"2 of 3 shards are missing, the first is data/val-00000-of-00003.parquet"):
        check_shards(["data/val-00001-of-00003.parquet"])


@pytest.mark.parametrize("label", ["label", "labels", "fine_label", "cls", "species"])
@pytest.mark.parametrize("image", ["image", "img", "pixel_values", "jpg"])
def test_columns_of_any_name(tmp_path: Path, image: str, label: str) -> None:
    source = opened(_write(tmp_path, image=image, label=label, features=None))
    assert source.class_names == ("0", "1")
    assert source.collection.notes == (f"images from column {image}, labels from column {label}",)
    _check(source)


def test_several_columns_have_to_be_named(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["0", "1"]),
            "coarse_label": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    whole = table(IMAGES, LABELS, label="fine_label").append_column("coarse_label", pa.array([0, 0, 1, 1] * 10))
    for part in ("train", "test"):
        pq.write_table(whole.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / f"{part}.parquet")
    with pytest.raises(UserError, match=r"data.label_column: .* has fine_label and coarse_label; name the one"):
        opened(tmp_path)
    _check(opened(tmp_path, label_column="fine_label"))
    assert opened(tmp_path, label_column="coarse_label").class_names == ("a", "b")
    with pytest.raises(
        UserError, match=r"data.label_column: .* has no column 'middle'; its columns are image .Image., fine"
    ):
        opened(tmp_path, label_column="middle")
    with pytest.raises(UserError, match=r"data.label_column: .*image is struct"):
        opened(tmp_path, label_column="image")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dog", "cat"], ("cat", "dog")),
        ([False, True], ("False", "True")),
        (["9", "10"], ("10", "9")),
    ],
)
def test_labels_of_any_kind(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    source = opened(_write_labels(tmp_path, labels * 20))
    assert source.class_names == names
    assert [source.class_names[label] for label in source.images.labels[:4]] == [str(each) for each in labels * 2]


def _write_labels(root: Path, labels: list[Any]) -> Path:
    for part in ("train", "test"):
        write_parquet(root / f"{part}.parquet", IMAGES, labels)
    return root


def test_text_labels_that_sort_both_ways_are_an_open_question(tmp_path: Path) -> None:
    _write_labels(tmp_path, ["9", "10"] * 20)
    assert opened(tmp_path).collection.classes.is_open
    assert opened(tmp_path, class_order="natural").class_names == ("9", "10")


@pytest.mark.parametrize("kind", ["binary", "grey_rows", "rows_of_colours", "path"])
def test_images_of_any_kind(tmp_path: Path, kind: str) -> None:
    if kind == "binary":
        cells = pa.array(IMAGES)
    elif kind == "grey_rows":
        cells = pa.array([[[row] * 4] * 4 for row in range(40)], pa.list_(pa.list_(pa.uint8())))
    elif kind == "rows_of_colours":
        cells = pa.array([[[[row] * 3] * 4] * 4 for row in range(40)], pa.list_(pa.list_(pa.list_(pa.uint8()))))
    else:
        for row, content in enumerate(IMAGES):
            (tmp_path / f"{row}.png").write_bytes(content)
        paths = [{"bytes": None, "path": str(tmp_path / f"{row}.png")} for row in range(40)]
        cells = pa.array(paths, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    for part in ("train", "test"):
        pq.write_table(pa.table({"image": cells, "label": LABELS}), tmp_path / f"{part}.parquet")
    _check(opened(tmp_path, channels=3))


def write_both(root: Path, pictures: list[bytes]) -> None:
    """Write pictures of two classes in turn, for training and test: as Parquet files, and as image files in `files`."""
    for part in ("train", "test"):
        write_parquet(root / f"{part}.parquet", pictures, [row % 2 for row in range(len(pictures))])
        for row, content in enumerate(pictures):
            folder = root / "files" / part / str(row % 2)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.png").write_bytes(content)


def test_images_of_different_sizes_are_prepared_as_a_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [png(rng.integers(0, 255, (20 + row, 30, 3))) for row in range(8)]
    write_both(tmp_path, pictures)
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, 16, crop_fraction=0.875)
    table_, files = (opened(root, name, image_size=16).prepare(preprocessing, CPU)
                     for root, name in ((tmp_path, "parquet"), (tmp_path / "files", "imagefolder")))  # fmt: skip
    [(ours, labels)], [(theirs, of_files)] = (list(data.batches("test", batch_size=8)) for data in (table_, files))
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # a folder's come class by class
    assert torch.equal(ours[order], theirs)
    assert torch.equal(labels[order], of_files)


def test_large_square_images_are_cropped_whatever_holds_them(tmp_path: Path) -> None:
    """256 pixels for a network of 224: Parquet used not to crop, 25 of 255 grey levels off."""
    rng = np.random.default_rng(0)
    pictures = [png(rng.integers(0, 255, (256, 256, 3))) for _ in range(4)]
    write_both(tmp_path, pictures)
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, 224, "bicubic", 0.875)
    found = []
    for root, name, held in (
        (tmp_path, "parquet", None),
        (tmp_path, "parquet", True),
        (tmp_path / "files", "imagefolder", None),
    ):
        data = opened(root, name, in_memory=held, validation_fraction=0.5).prepare(preprocessing, CPU)
        [(images, labels)] = data.batches("test", batch_size=4)
        found.append(images[labels.argsort(stable=True)])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[2])


def test_channels_are_decided_over_all_rows_or_by_a_field(tmp_path: Path) -> None:
    grey, colour = [png(np.full((4, 4), row)) for row in range(20)], [flat(row) for row in range(20, 40)]
    for part in ("train", "test"):
        write_parquet(tmp_path / "mixed" / f"{part}.parquet", [*grey, *colour], LABELS)
        write_parquet(tmp_path / "grey" / f"{part}.parquet", [*grey, *grey], LABELS)
    assert opened(tmp_path / "mixed").in_channels == 3
    assert opened(tmp_path / "mixed", channels=1).in_channels == 1
    assert opened(tmp_path / "grey").in_channels == 1
    _check(opened(tmp_path / "mixed"))
    data = opened(tmp_path / "mixed", channels=1).prepare(Preprocessing((0.0,), (1 / 255,), 4), CPU)
    assert next(data.batches("test", batch_size=2))[0].shape == (2, 1, 4, 4)


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(("last", "channels"), [(np.zeros((4, 4)), 1), (np.zeros((4, 4, 3)), 3)])
def test_headers_of_other_formats_count_as_well(tmp_path: Path, last: Any, channels: int) -> None:
    pictures = [*[_jpeg(np.zeros((4, 4)))] * 39, _jpeg(last)]
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", pictures, LABELS)
    assert opened(tmp_path).in_channels == channels


@pytest.mark.parametrize("text", [False, True])
def test_webdataset(tmp_path: Path, text: bool) -> None:
    for part in ("train", "val"):
        for shard in range(2):
            with tarfile.open(tmp_path / f"{part}-{shard:06d}.tar", "w") as tar:
                for row in range(20 * shard, 20 * shard + 20):
                    label = NAMES[row % 2] if text else str(row % 2)
                    for suffix, content in (("png", IMAGES[row]), ("txt" if text else "cls", label.encode())):
                        entry = tarfile.TarInfo(f"{row:06d}.{suffix}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    source = opened(tmp_path, "webdataset")
    assert source.class_names == (NAMES if text else ("0", "1"))
    _check(source)
    assert source.images.where(3).endswith("sample 000003")
    assert source.fingerprint() == opened(tmp_path, "webdataset").fingerprint()


def test_a_set_that_was_saved_to_disk(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict(
        {"image": [{"bytes": each, "path": None} for each in IMAGES], "label": LABELS}, features=FEATURES
    )
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "saved"))
    _check(opened(tmp_path / "saved", "huggingface"))


def test_a_downloaded_repository_with_its_card(tmp_path: Path) -> None:
    _write(tmp_path, ("plain/a-00000-of-00001.parquet", "plain/b-00000-of-00001.parquet", "other/a.parquet"))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain\n  data_files:\n  - {split: train, path: plain/a-*}\n"
        "  - {split: test, path: plain/b-*}\n- config_name: other\n  data_files:\n"
        "  - {split: train, path: other/*}\n---\n"
    )
    _check(opened(tmp_path, "huggingface", subset="plain"))
    assert len(opened(tmp_path, "parquet", subset="other", test_fraction=0.25).splits.test) == 10


def test_images_stay_in_their_file_until_they_are_asked_for(tmp_path: Path) -> None:
    """The images of a large set are mapped from an Arrow file: they are no part of what a loader worker is sent."""
    import pickle

    rng = np.random.default_rng(0)
    pictures = [png(rng.integers(0, 255, (128, 128, 3))) for _ in range(40)]
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", pictures, LABELS, features=FEATURES)
    source = opened(tmp_path)
    assert not source.in_memory
    source.images.picture(0)
    sent = pickle.dumps(source.images)
    assert len(sent) < len(pictures[0])
    assert pickle.loads(sent).picture(7).tobytes() == source.images.picture(7).tobytes()


def test_small_images_that_are_too_many_for_memory_are_read_from_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path)
    assert opened(tmp_path).in_memory
    monkeypatch.setattr("pwfn.data.columns.SMALL_BYTES", 1000)
    source = opened(tmp_path)
    assert not source.in_memory
    _read_all(tmp_path)


def test_more_than_the_disk_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    _write(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"the Arrow files of 2 files take about 0\.0 GiB, but .* set data\.cache to"):
        opened(tmp_path)


def _read_all(root: Path) -> None:
    data = opened(root).prepare(PLAIN, CPU)
    for split in ("train", "validation"):
        list(data.batches(split, batch_size=8))


class TestErrors:
    def test_no_file_of_the_kind(self, tmp_path: Path) -> None:
        (tmp_path / "images.csv").write_text("a,b")
        with pytest.raises(UserError, match=r"has no file \*\.parquet for data\.name=parquet \(found: images\.csv\)"):
            opened(tmp_path)

    @pytest.mark.parametrize("keep", [0, 100, -100])
    def test_a_damaged_file(self, tmp_path: Path, keep: int) -> None:
        _write(tmp_path)
        content = (tmp_path / "train.parquet").read_bytes()
        (tmp_path / "train.parquet").write_bytes(content[:keep])
        with pytest.raises(UserError, match=r"train\.parquet: not a readable Parquet file: [^\n]+$"):
            opened(tmp_path)

    def test_a_damaged_page(self, tmp_path: Path) -> None:
        _write(tmp_path)
        content = bytearray((tmp_path / "train.parquet").read_bytes())
        content[4:400] = b"\xff" * 396
        (tmp_path / "train.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be read by datasets: [^\n]+$"):
            opened(tmp_path)

    @pytest.mark.parametrize("row", [0, 23])
    @pytest.mark.parametrize("content", [IMAGES[0][:40], b"", b"<html>", None])
    def test_a_broken_image_is_named(self, tmp_path: Path, row: int, content: bytes | None) -> None:
        _write(tmp_path)
        write_parquet(
            tmp_path / "train.parquet", [*IMAGES[:row], content, *IMAGES[row + 1 :]], LABELS, features=FEATURES
        )
        with pytest.raises(UserError, match=rf"train\.parquet, row {row}: not a readable image: "):
            _read_all(tmp_path)

    def test_no_image_and_no_label_column(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            pq.write_table(pa.table({"a": [0.5] * 4, "label": [0, 1] * 2}), tmp_path / f"{part}.parquet")
        with pytest.raises(
            UserError, match=r"no column of images; its columns are a \(float64\), label \(int64\); name one"
        ):
            opened(tmp_path)
        for part in ("train", "test"):
            write_parquet(tmp_path / f"{part}.parquet", IMAGES, [0.5] * 40)
        with pytest.raises(UserError, match="no column of labels; its columns are image"):
            opened(tmp_path)

    def test_a_label_outside_the_classes(self, tmp_path: Path) -> None:
        _write(tmp_path)
        write_parquet(tmp_path / "train.parquet", IMAGES, [*LABELS[:39], 7], features=FEATURES)
        with pytest.raises(UserError, match=r"label 7 is outside 0\.\.1 \(2 classes: cat, dog\)"):
            opened(tmp_path)

    def test_missing_labels(self, tmp_path: Path) -> None:
        _write(tmp_path)
        write_parquet(tmp_path / "train.parquet", IMAGES, [*LABELS[:39], None], features=FEATURES)
        with pytest.raises(UserError, match="split train: 1 rows have no label"):
            opened(tmp_path)

    def test_no_rows(self, tmp_path: Path) -> None:
        _write(tmp_path)
        write_parquet(tmp_path / "test.parquet", [], pa.array([], pa.int64()), features=FEATURES)
        with pytest.raises(UserError, match=r"test\.parquet: the split test holds no rows"):
            opened(tmp_path)

    def test_files_that_name_other_classes(self, tmp_path: Path) -> None:
        _write(tmp_path)
        swapped = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
        write_parquet(tmp_path / "test.parquet", IMAGES, LABELS, features=swapped)
        with pytest.raises(
            UserError, match=r"metadata names the classes .* instead of .* as in \w+\.parquet; labels would not"
        ):
            opened(tmp_path)

    def test_a_column_of_texts_is_no_column_of_images(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            pq.write_table(pa.table({"file": ["a.png"] * 4, "label": [0, 1] * 2}), tmp_path / f"{part}.parquet")
        with pytest.raises(UserError, match=r"^data\.image_column: .*: file is string; images are bytes, records with"):
            opened(tmp_path, image_column="file")

    def test_a_path_in_a_table_that_leads_nowhere_is_named(self, tmp_path: Path) -> None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = pa.array([{"bytes": None, "path": f"pictures/{row}.png"} for row in range(40)], kind)
        for part in ("train", "test"):
            pq.write_table(pa.table({"image": cells, "label": LABELS}), tmp_path / f"{part}.parquet")
        message = r"train\.parquet, row \d+: pictures/\d+\.png cannot be read: No such file or directory; --check-data"
        with pytest.raises(UserError, match=message):
            _read_all(tmp_path)

    def test_a_file_for_a_root(self, tmp_path: Path) -> None:
        _write(tmp_path)
        with pytest.raises(UserError, match=r"train\.parquet is a file; name the folder that it is in$"):
            opened(tmp_path / "train.parquet")

    def test_a_name_on_the_hub_without_network(self) -> None:
        config = DataConfig(name="huggingface", dataset="nobody/nothing")
        with pytest.raises(UserError, match=r"^data: nobody/nothing cannot be read by datasets: [^\n]+$"):
            open_source(config, seed=0)

    def test_a_text_in_a_cls_entry(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
                for name, content in (("0.png", IMAGES[0]), ("0.cls", b"cat")):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        with pytest.raises(UserError, match=r"a \.cls entry is no number .*; store text labels as \.txt"):
            opened(tmp_path, "webdataset")

    def test_a_store_where_only_folders_are_read(self) -> None:
        message = r"data\.root: s3://bucket/x is an address, but data\.name=imagefolder reads folders of this machine; "
        with pytest.raises(UserError, match=message):
            open_source(DataConfig(name="imagefolder", root="s3://bucket/x"), seed=0)
