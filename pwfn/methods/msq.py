"""MSQ: nearest rounding to GPFQ's alphabet, its memoryless baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from pwfn.config import AlphabetConfig, MsqConfig
from pwfn.gpfq.alphabet import Alphabet, alphabets_of
from pwfn.gpfq.layers import Layer, fixable_layers
from pwfn.methods.rounds import Fixing, Method
from pwfn.task import Task


class Msq(Method):
    """Memoryless scalar quantisation of a task's network: one round that fixes all weights, without any data."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        assert isinstance(task.config.method, MsqConfig)
        self.config = task.config.method

    def fix(self, index: int) -> Fixing:
        """Round every weight and bias to the nearest level of its layer's alphabet."""
        network = self.task.network
        for layer, alphabet in layer_alphabets(network, self.config).items():
            round_to_nearest_(network, layer, alphabet)
        return Fixing.of_all(network)


def layer_alphabets(network: nn.Module, config: AlphabetConfig) -> Mapping[Layer, Alphabet]:
    """Build the alphabet of every layer of a network, from the weights as they are now."""
    layers = fixable_layers(network)
    weights = [cast(Tensor, layer.module(network).weight) for layer in layers]
    return dict(zip(layers, alphabets_of(weights, config), strict=True))


@torch.no_grad()
def round_to_nearest_(network: nn.Module, layer: Layer, alphabet: Alphabet) -> None:
    """Round all of a layer's own parameters to the nearest level, in place."""
    for parameter in layer.parameters(network):
        parameter.copy_(alphabet.nearest(parameter))
