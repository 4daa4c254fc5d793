"""Data in an object store, on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from image_sets import flat, write_parquet
from pyarrow import fs
from s3_server import BUCKET, S3Server

from pwfn.config import DataConfig
from pwfn.data import Preprocessing, open_source
from pwfn.errors import UserError

IMAGES, LABELS = [flat(row) for row in range(20)], [0, 1] * 10


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


def test_parquet_in_a_store(server: S3Server, tmp_path: Path) -> None:
    filesystem = fs.S3FileSystem(endpoint_override=server.endpoint, scheme="http", region="us-east-1")
    for part in ("train-00000-of-00001", "test-00000-of-00001"):
        write_parquet(tmp_path / f"{part}.parquet", IMAGES, LABELS)
        with filesystem.open_output_stream(f"{BUCKET}/pets/data/{part}.parquet") as file:
            file.write((tmp_path / f"{part}.parquet").read_bytes())
    config = DataConfig(name="parquet", root=server.uri("pets"), augmentation="none")
    source = open_source(config, seed=0)
    data = source.prepare(Preprocessing((0.0,) * 3, (1 / 255,) * 3, 4), torch.device("cpu"))
    [(images, labels)] = data.batches("test", batch_size=20)
    assert images[:, 0, 0, 0].round().tolist() == list(range(20))
    assert labels.tolist() == LABELS
    assert source.fingerprint() == open_source(config, seed=0).fingerprint()
    with pytest.raises(UserError, match=r"data\.root: s3://.*cars.* has no file \*\.parquet"):
        open_source(config.model_copy(update={"root": server.uri("cars")}), seed=0)


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one() -> None:
    root = "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(UserError, match=r"data\.root: s3://bucket/x cannot be read: .*NETWORK_CONNECTION"):
        open_source(DataConfig(name="parquet", root=root), seed=0)


@pytest.mark.parametrize("root", ["https://host/data", "file:///data"])
def test_an_address_that_is_no_store(root: str) -> None:
    with pytest.raises(UserError, match=rf"data\.root: {root} is no store; give a folder of this machine, s3://"):
        open_source(DataConfig(name="parquet", root=root), seed=0)


def test_a_store_that_is_not_known() -> None:
    with pytest.raises(UserError, match=r"data\.root: xyz://somewhere/x cannot be opened: Protocol not known: xyz"):
        open_source(DataConfig(name="parquet", root="xyz://somewhere/x"), seed=0)
