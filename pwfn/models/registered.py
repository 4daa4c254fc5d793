"""Makes our own architectures known to timm, by name."""

from __future__ import annotations

from typing import Any, cast

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from pwfn.models.networks import ARCHITECTURES, Architecture

default_cfgs = generate_default_cfgs({name: dict(ours.record) for name, ours in ARCHITECTURES.items()})
"""timm's registry looks for this name in the module of a function that is registered."""


def _register(name: str, ours: Architecture) -> None:
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return cast(nn.Module, build_model_with_cfg(ours.constructor, name, pretrained, **kwargs))

    build.__name__, build.__doc__ = name, ours.meaning  # the registry reads the network's name off the function
    register_model(build)


for _name, _ours in ARCHITECTURES.items():
    _register(_name, _ours)
