"""Broken images, stuck files, killed workers, short memory: one line, or left out with a count; never a hang."""

import io
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from image_sets import fill, flat, opened, write_parquet
from rich.console import Console

from pwfn.config import DataConfig
from pwfn.data import Preprocessing, open_source
from pwfn.data.check import check_images
from pwfn.data.loader import check_shared_memory
from pwfn.errors import LoaderError, UserError

CPU = torch.device("cpu")
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, image_size=4)
DAMAGE = {"truncated": flat(0)[:40], "empty": b"", "page": b"<html><body>404</body></html>"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        fill(tmp_path / part, ("ant", "bee"), 8)
    return tmp_path


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_check_data_lists_every_broken_image(root: Path, content: bytes) -> None:
    for path in ("train/ant/1.png", "train/bee/5.png", "val/ant/0.png"):
        (root / path).write_bytes(content)
    out = io.StringIO()
    with pytest.raises(
        UserError, match=r"^3 of 32 images are broken, the first is .*train/ant/1\.png: not a readable image"
    ):
        check_images(opened(root, "imagefolder"), Console(file=out, width=200))
    assert out.getvalue().count("broken: ") == 3
    assert "32 images looked at, 3 broken" in out.getvalue()
    skip = opened(root, "imagefolder", broken_images="skip")
    assert check_images(skip, Console(file=io.StringIO())) == 3


def test_check_data_of_sound_images(root: Path) -> None:
    assert check_images(opened(root, "imagefolder"), Console(file=io.StringIO())) == 0


@pytest.mark.parametrize("held", [False, True])
def test_broken_images_are_left_out_with_a_count(root: Path, held: bool, caplog: pytest.LogCaptureFixture) -> None:
    (root / "val/ant/3.png").write_bytes(b"")
    for number in range(8):  # the whole class but one
        (root / f"train/bee/{number}.png").write_bytes(b"" if number else flat(10))
    data = opened(root, "imagefolder", broken_images="skip", in_memory=held).prepare(PLAIN, CPU)
    batches = list(data.batches("test", batch_size=8))
    assert [len(labels) for _, labels in batches] == ([8, 7] if held else [7, 8])
    assert torch.cat([labels for _, labels in batches]).bincount().tolist() == [7, 8]
    epoch = list(data.train_batches(batch_size=6, seed=0))
    assert epoch
    assert all(len(images) == len(labels) for images, labels in epoch)
    if not held:  # another image of the batch takes the place of a broken one
        assert [len(labels) for _, labels in epoch] == [6, 6]
    again = list(data.train_batches(batch_size=6, seed=0))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch, again, strict=True))
    assert any("left out" in record.message for record in caplog.records)


def test_a_file_name_that_is_not_utf8(root: Path) -> None:
    strange = os.fsencode(root / "train" / "ant") + b"/caf\xe9.png"
    Path(os.fsdecode(strange)).write_bytes(flat(3))
    strange_class = os.fsencode(root / "train") + b"/z\xe9bre"
    Path(os.fsdecode(strange_class)).mkdir()
    (Path(os.fsdecode(strange_class)) / "0.png").write_bytes(flat(3))
    source = opened(root, "imagefolder")
    assert source.class_names == ("ant", "bee", "z\\xe9bre")
    assert source.fingerprint() == opened(root, "imagefolder").fingerprint()
    rows = [row for row in range(len(source.images)) if "caf\\xe9" in source.images.where(row)]
    assert len(rows) == 1
    source.images.where(rows[0]).encode()
    assert sum(len(labels) for _, labels in source.prepare(PLAIN, CPU).batches("train", batch_size=4)) == 14


def test_a_file_that_never_answers_ends_in_one_line(root: Path) -> None:
    (root / "val/bee/1.png").unlink()
    os.mkfifo(root / "val/bee/1.png")
    data = opened(root, "imagefolder", loader_workers=1, loader_timeout=3.0).prepare(PLAIN, CPU)
    started = time.monotonic()
    with pytest.raises(
        LoaderError, match=r"^no batch came from the loader in 3 s \(data\.loader_timeout\): a file or a drive"
    ):
        list(data.batches("test", batch_size=16))
    assert time.monotonic() - started < 60
    assert not multiprocessing.active_children()  # the worker that waits for the file has ended too


def test_a_killed_worker_ends_in_one_line(root: Path) -> None:
    (root / "val/bee/1.png").unlink()
    os.mkfifo(root / "val/bee/1.png")  # keeps the worker busy until it is killed
    data = opened(root, "imagefolder", loader_workers=1, loader_timeout=60.0).prepare(PLAIN, CPU)
    before = {child.pid for child in psutil.Process().children()}

    def kill() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            ours = [child for child in psutil.Process().children() if child.pid not in before and _is_loader(child)]
            if ours:
                time.sleep(1)
                ours[0].send_signal(signal.SIGKILL)
                return
            time.sleep(0.1)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        LoaderError, match=r"^a loader worker was killed, mostly for lack of memory: lower data\.loader_workers"
    ):
        list(data.batches("test", batch_size=16))
    killer.join()


def _is_loader(child: psutil.Process) -> bool:
    try:
        return "resource_tracker" not in " ".join(child.cmdline())
    except psutil.Error:
        return False


def test_too_little_shared_memory_is_said_before_workers_start(tmp_path: Path) -> None:
    free = __import__("shutil").disk_usage(tmp_path).free
    check_shared_memory(4, 1000, tmp_path)
    check_shared_memory(0, free, tmp_path)
    message = (
        r"data\.loader_workers=4: their batches take \d+ MiB of shared memory, but .* use fewer workers .*--shm-size"
    )
    with pytest.raises(UserError, match=message):
        check_shared_memory(4, free, tmp_path)


class TestNamedSets:
    @pytest.fixture
    def mnist(self, tmp_path: Path) -> Path:
        raw = tmp_path / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, num in (("train", 30), ("t10k", 10)):
            for name, array in (
                (f"{part}-images-idx3-ubyte", np.zeros((num, 28, 28))),
                (f"{part}-labels-idx1-ubyte", np.arange(num) % 10),
            ):
                header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
                (raw / name).write_bytes(header + array.astype(np.uint8).tobytes())
        return tmp_path

    @pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
    @pytest.mark.parametrize("content", [b"", b"<html><body>moved</body></html>" * 9, b"\x00\x00\x08\x01\x00\x00"])
    def test_damaged_files_are_one_line(self, mnist: Path, name: str, content: bytes) -> None:
        (mnist / "MNIST" / "raw" / name).write_bytes(content)
        with pytest.raises(UserError, match=r"^data\.root: MNIST \(train=\w+\) [^\n]*under [^\n]*$"):
            open_source(DataConfig(name="torchvision", root=str(mnist), dataset="MNIST"), seed=0)

    def test_fewer_labels_than_images(self, mnist: Path) -> None:
        header = bytes([0, 0, 8, 1]) + np.array([7], ">i4").tobytes()
        (mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(header + bytes(range(7)))
        with pytest.raises(UserError, match="MNIST, split train has 30 images and 7 labels"):
            open_source(DataConfig(name="torchvision", root=str(mnist), dataset="MNIST"), seed=0)

    def test_imagenet_folders_without_the_devkit(self, tmp_path: Path) -> None:
        for part in ("train", "val"):
            fill(tmp_path / part, ("n01440764", "n01443537"))
        message = r"its folders are there: read them with data\.name=imagefolder data\.root="
        with pytest.raises(UserError, match=message):
            open_source(DataConfig(name="torchvision", root=str(tmp_path), dataset="ImageNet"), seed=0)
        assert opened(tmp_path, "imagefolder").num_classes == 2


def test_a_table_with_broken_images_can_leave_them_out(tmp_path: Path) -> None:
    pictures = [flat(row) if row % 5 else b"broken" for row in range(20)]
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", pictures, [0, 1] * 10)
    data = opened(tmp_path, broken_images="skip", in_memory=True).prepare(PLAIN, CPU)
    assert data.num_test == 16
