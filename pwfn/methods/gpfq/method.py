"""GPFQ: greedy path-following quantisation of a trained network, layer by layer, without any training."""

from __future__ import annotations

import torch

from pwfn.config import GpfqConfig
from pwfn.methods.gpfq.alphabet import LayerAlphabets, Quantize, quantizer
from pwfn.methods.gpfq.layers import FixableLayer
from pwfn.methods.gpfq.msq import layer_alphabets, round_to_nearest_
from pwfn.methods.gpfq.network import LayerwiseQuantization
from pwfn.methods.rounds import Fixing, Method
from pwfn.seeds import generator
from pwfn.task import Task


class Gpfq(Method):
    """Path-following quantisation of a task's network: one round that fixes all weights."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        assert isinstance(task.config.method, GpfqConfig)
        self.config = task.config.method

    @torch.no_grad()
    def fix(self, index: int) -> Fixing:
        """Quantise every layer.

        Layers that path following cannot treat are rounded to the nearest level first, before all others.

        Raises:
            UserError: an alphabet has the radius 0, or a layer does not run for all images.
        """
        network, config = self.task.network, self.config
        alphabets = layer_alphabets(network, config)
        layerwise = LayerwiseQuantization(
            self.task,
            calibration_images=config.calibration_images,
            in_activation_order=config.order == "activation",
            max_gram_features=config.max_gram_features,
        )
        untreated = layerwise.quantize_(
            lambda layer: self._quantizers(layer, alphabets[layer]),
            lambda layer: round_to_nearest_(network, layer, alphabets[layer]),
        )
        return Fixing.of_all(network, untreated_layers=tuple(layer.name for layer in untreated))

    def _quantizers(self, layer: FixableLayer, alphabets: LayerAlphabets) -> list[Quantize]:
        """Build the quantiser of the weights, and that of the bias, if any, without `sparsify`."""
        draws = generator(self.task.device, self.task.config.seed, "rounding", layer.name)
        of_weight = quantizer(alphabets.weight, self.config, draws)
        of_bias = quantizer(alphabets.bias, self.config.model_copy(update={"sparsify": "none"}), draws)
        return [of_weight, of_bias][: len(layer.own)]
