"""Our pixels are timm's, for one network of every data configuration in timm's registry."""

from collections import defaultdict

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from pwfn.config import DataConfig
from pwfn.data import Preprocessing
from pwfn.data.contract import Data
from pwfn.data.transforms import leaves_alone, measuring_transform
from pwfn.models import preprocessing_of, record_preparation_

rng = np.random.default_rng(0)
PHOTOS = [Image.fromarray(rng.integers(0, 255, size, np.uint8)) for size in ((90, 160, 3), (160, 90, 3), (64, 64, 3))]


class _Network:
    """As much of a network as its pre-processing is read from."""

    def __init__(self, record: dict[str, object]) -> None:
        self.pretrained_cfg = record


def _configurations() -> dict[tuple[object, ...], str]:
    """One name for each way in which timm's networks want their images, for training and for testing."""
    found: dict[tuple[object, ...], str] = {}
    for name in timm.list_models(pretrained=True):
        record = timm.get_pretrained_cfg(name).to_dict()
        both = [resolve_data_config(pretrained_cfg=record, use_test_size=test) for test in (False, True)]
        found.setdefault(tuple(value for each in both for value in map(str, each.values())), name)
    return found


def _scaled(data: dict[str, object], longest: int = 96) -> dict[str, object]:
    """Reduce a large input, so that 219 configurations take seconds; what is cropped and how stays."""
    channels, height, width = data["input_size"]
    factor = max(1.0, max(height, width) / longest)
    return {**data, "input_size": (channels, round(height / factor), round(width / factor))}


class _Nothing(Data):
    """Batches of nothing: only the normalisation is of interest."""

    def train_batches(self, **_: object) -> None: ...
    def batches(self, split: str, **_: object) -> None: ...


@pytest.mark.parametrize("use_test_size", [False, True])
def test_the_pixels_are_timms_for_every_distinct_configuration(use_test_size: bool) -> None:
    configurations = _configurations()
    assert len(configurations) > 200
    kinds = defaultdict(int)
    for name in configurations.values():
        record = timm.get_pretrained_cfg(name).to_dict()
        wanted = _scaled(resolve_data_config(pretrained_cfg=record, use_test_size=use_test_size))
        network = _Network(record)
        record_preparation_(network, DataConfig(name="digits", use_test_size=use_test_size))
        found = preprocessing_of(network)
        assert found.shape == tuple(
            resolve_data_config(pretrained_cfg=record, use_test_size=use_test_size)["input_size"]
        )
        _, *size = wanted["input_size"]
        ours = Preprocessing(
            found.mean, found.std, tuple(size), found.interpolation, found.crop_fraction, found.crop_mode
        )
        theirs = create_transform(**wanted)
        data = _Nothing(2, {}, torch.zeros(0, dtype=torch.bool), ours, torch.device("cpu"))
        for photo in PHOTOS:
            pixels = data._normalise(measuring_transform(ours)(photo)[None])[0]
            torch.testing.assert_close(
                pixels, theirs(photo), atol=2e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        kinds[found.crop_mode] += 1
    assert {"center", "squash", "border"} <= kinds.keys()


def test_the_configuration_overrides_the_networks_record() -> None:
    record = timm.get_pretrained_cfg("resnet18.a1_in1k").to_dict()
    network = _Network(record)
    settings = {"interpolation": "bilinear", "crop_fraction": 0.5, "crop_mode": "squash"}
    record_preparation_(network, DataConfig(name="digits", **settings))
    found = preprocessing_of(network)
    assert (found.interpolation, found.crop_fraction, found.crop_mode, found.image_size) == (
        "bilinear",
        0.5,
        "squash",
        224,
    )
    record_preparation_(network, DataConfig(name="digits", use_test_size=True))
    assert preprocessing_of(network).image_size == 288


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize(
    ("size", "crop", "alone"), [((16, 16), 1.0, True), ((16, 16), 0.9, False), ((17, 16), 1.0, False)]
)
def test_what_is_left_alone_is_what_the_transform_does_not_change(
    crop_mode: str, size: tuple[int, int], crop: float, alone: bool
) -> None:
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, 16, crop_fraction=crop, crop_mode=crop_mode)
    image = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), np.uint8))
    assert leaves_alone(preprocessing, image) == alone
    if alone:
        assert torch.equal(
            measuring_transform(preprocessing)(image), torch.from_numpy(np.array(image)).permute(2, 0, 1)
        )
