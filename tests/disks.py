"""Small real disks that a test can fill, or make read-only."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory; the test is skipped where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a file system of its own, and cannot mount one: {getattr(error, 'stderr', error)}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Callable[[], None]:
    """Take all space that is left; the result gives it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast.unlink


def make_read_only(disk: Path) -> Callable[[], None]:
    """Refuse all writes; the result allows them again."""
    _remount(disk, "ro")
    return lambda: _remount(disk, "rw")


def put_in_the_way(parent: Path, name: str = "results") -> Callable[[], None]:
    """Have a file where a folder was; the result puts the folder back."""
    folder, aside = parent / name, parent / "aside"
    folder.rename(aside)
    folder.write_bytes(b"")

    def undo() -> None:
        folder.unlink()
        aside.rename(folder)

    return undo


@contextmanager
def later(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread after a while; it has been done when the context ends."""
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def _remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)
