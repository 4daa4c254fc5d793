"""Labelled images of one split, whatever holds them: labels at once, pictures one by one when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import torch
from PIL.Image import Image
from torch import Tensor

from pwfn.data.fingerprint import digest_array, digest_image_files


class Images(ABC):
    """Labelled images; small enough to pickle, since loader workers get a copy."""

    def __init__(self, name: str, labels: Tensor) -> None:
        self.name = name
        """For messages."""
        self.labels = labels
        """int64 `(images,)`, in the order of the classes."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def picture(self, row: int) -> Image:
        """Decode one image, in whatever mode it is stored; a broken file raises nearly anything."""

    @abstractmethod
    def where(self, row: int) -> str:
        """Say for a message where the image is: a path, or a file and a row."""

    @abstractmethod
    def content(self) -> str:
        """Digest the images, cheaper than reading them."""


class FileImages(Images):
    """Image files on a disk."""

    def __init__(self, name: str, labels: Tensor, paths: Sequence[str], root: str) -> None:
        super().__init__(name, labels)
        self.paths = paths
        self.root = root
        """The folder below which they lie."""

    def picture(self, row: int) -> Image:
        """Decode a file."""
        from PIL import Image as pillow  # noqa: N813  (the module is named as its class)

        with pillow.open(self.paths[row]) as image:
            image.load()
            return image

    def where(self, row: int) -> str:
        """Name the file; what is not valid UTF-8 in its name is escaped."""
        return printable(self.paths[row])

    def content(self) -> str:
        """Digest names and sizes."""
        return digest_image_files(self.paths, self.root)


class ArrayImages(Images):
    """Images that are in memory already."""

    def __init__(self, name: str, labels: Tensor, pixels: Tensor) -> None:
        super().__init__(name, labels)
        self.pixels = pixels
        """uint8 `(images, height, width)`, grey."""

    def picture(self, row: int) -> Image:
        """Wrap the pixels."""
        from PIL import Image as pillow  # noqa: N813

        return pillow.fromarray(self.pixels[row].numpy())

    def where(self, row: int) -> str:
        """Name the set and the row."""
        return f"{self.name}, image {row}"

    def content(self) -> str:
        """Digest the pixels."""
        return digest_array(self.pixels[:, None])


class JoinedImages(Images):
    """Several splits one after another, so that a row names an image whichever split it is from."""

    def __init__(self, parts: Sequence[Images]) -> None:
        super().__init__(parts[0].name, torch.cat([part.labels for part in parts]))
        self.parts = parts
        self.ends = list(accumulate(len(part) for part in parts))

    def picture(self, row: int) -> Image:
        """Decode an image of one of the parts."""
        part, row = self._place(row)
        return part.picture(row)

    def where(self, row: int) -> str:
        """Say where it is in its part."""
        part, row = self._place(row)
        return part.where(row)

    def content(self) -> str:
        """Join the parts' digests."""
        return " ".join(part.content() for part in self.parts)

    def _place(self, row: int) -> tuple[Images, int]:
        index = bisect_right(self.ends, row)
        return self.parts[index], row - (self.ends[index - 1] if index else 0)


def printable(path: str) -> str:
    """Write a path so that any terminal and any file takes it: bytes that are not UTF-8 are escaped."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
