"""Small sets of images that tests write; colours tell classes and numbers apart."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pwfn.config import DataConfig
from pwfn.data import Source, open_source


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def flat(level: int, side: int = 4) -> bytes:
    return png(np.full((side, side, 3), level))


def fill(folder: Path, classes: Any, per_class: int = 4, suffix: str = ".png") -> None:
    """Write `folder/CLASS/NUMBER.png`; the grey level of an image is 10 times the place of its class."""
    for place, name in enumerate(classes):
        (folder / str(name)).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            (folder / str(name) / f"{number}{suffix}").write_bytes(flat(10 * place + number))


def table(images: list[Any], labels: Any, image: str = "image", label: str = "label", features: Any = None) -> pa.Table:
    """Make a table in Hugging Face's image layout."""
    contents = [{"bytes": each, "path": None} for each in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = pa.table({image: pa.array(contents, kind), label: pa.array(labels)})
    return columns if features is None else columns.replace_schema_metadata(features.arrow_schema.metadata)


def write_parquet(path: Path, images: list[Any], labels: Any, **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(images, labels, **settings), path)


def opened(root: Path, name: str = "parquet", seed: int = 0, **settings: Any) -> Source:
    settings = {"augmentation": "none", "loader_workers": 0, "validation_fraction": 0.25, **settings}
    return open_source(DataConfig(name=name, root=str(root), **settings), seed=seed)
