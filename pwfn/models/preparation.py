"""How a network's images are prepared: timm's record of the network, with what the user's configuration overrides."""

from __future__ import annotations

from typing import Any

from timm.data import resolve_model_data_config
from torch import nn

from pwfn.config import DataConfig
from pwfn.data.contract import Preprocessing


def preprocessing_of(network: nn.Module) -> Preprocessing:
    """Return how images are prepared for a network of `build_network`.

    Where the data has another number of channels than the network was made for, the channels' mean statistics serve
    for each.
    """
    found: dict[str, Any] = resolve_model_data_config(network)
    channels, height, width = found["input_size"]
    return Preprocessing(
        mean=_per_channel(found["mean"], channels),
        std=_per_channel(found["std"], channels),
        image_size=(height, width),
        interpolation=found["interpolation"],
        crop_fraction=found["crop_pct"],
        crop_mode=found["crop_mode"],
    )


def record_preparation_(network: Any, config: DataConfig) -> None:
    """Write what the configuration says of size, crop and resizing into the network's record, which files keep."""
    record = dict(network.pretrained_cfg)
    channels = record["input_size"][0]
    if config.use_test_size and config.image_size is None:
        found = resolve_model_data_config(network, use_test_size=True)
        record |= {"input_size": (channels, *found["input_size"][-2:]), "crop_pct": found["crop_pct"]}
    given = {"interpolation": config.interpolation, "crop_pct": config.crop_fraction, "crop_mode": config.crop_mode}
    network.pretrained_cfg = {**record, **{name: value for name, value in given.items() if value is not None}}


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
