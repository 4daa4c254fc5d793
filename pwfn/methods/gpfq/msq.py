"""MSQ, memoryless scalar quantisation: rounding to the nearest level of GPFQ's alphabet, as its baseline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pwfn.config import AlphabetConfig, MsqConfig
from pwfn.errors import UserError
from pwfn.methods.gpfq.alphabet import LayerAlphabets, alphabets_of
from pwfn.methods.gpfq.layers import FixableLayer, fixable_layers
from pwfn.methods.rounds import Fixing, Method
from pwfn.task import Task


class Msq(Method):
    """Memoryless scalar quantisation of a task's network: one round that fixes all weights, without any data."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        assert isinstance(task.config.method, MsqConfig)
        self.config = task.config.method

    def fix(self, index: int) -> Fixing:
        """Round every weight and bias to the nearest level of its layer's alphabet.

        Raises:
            UserError: an alphabet has the radius 0.
        """
        network = self.task.network
        for layer, alphabet in layer_alphabets(network, self.config).items():
            round_to_nearest_(network, layer, alphabet)
        return Fixing.of_all(network)


def layer_alphabets(network: nn.Module, config: AlphabetConfig) -> Mapping[FixableLayer, LayerAlphabets]:
    """Build the alphabets of every layer of a network from its present weights.

    Raises:
        UserError: the radius of a layer is 0, although not all of its weights are zero.
    """
    layers = fixable_layers(network)
    rows = [layer.rows(network) for layer in layers]
    biases = [layer.biases(network) for layer in layers]
    alphabets = dict(zip(layers, alphabets_of(rows, biases, config), strict=True))
    for (layer, both), weights in zip(alphabets.items(), rows, strict=True):
        if both.weight.step_size == 0 and any(bool(weight.any()) for weight in weights):
            raise UserError(
                f"method.radius={config.radius}: too many weights of layer {layer.name} are zero, its radius is 0 and "
                "all would become zero; use method.radius=percentile with a larger method.percentile"
            )
    return alphabets


@torch.no_grad()
def round_to_nearest_(network: nn.Module, layer: FixableLayer, alphabets: LayerAlphabets) -> None:
    """Round all of a layer's own parameters to the nearest level, in place."""
    of_bias = {name for name in layer.own if layer.is_beside_rows(network, name)}
    for name, parameter in zip(layer.own, layer.parameters(network), strict=True):
        alphabet = alphabets.bias if name in of_bias else alphabets.weight
        parameter.copy_(alphabet.nearest(parameter))
