"""GPFQ: greedy path-following quantisation of a trained network, layer by layer, without any training."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from pwfn.config import GpfqConfig
from pwfn.methods.gpfq.alphabet import LayerAlphabets, Quantize, quantizer
from pwfn.methods.gpfq.calibration import Calibration
from pwfn.methods.gpfq.layers import FixableLayer, execution_order
from pwfn.methods.gpfq.msq import layer_alphabets, round_to_nearest_
from pwfn.methods.gpfq.path_following import LayerInputs, activation_order, follow_path_in_order
from pwfn.methods.rounds import Fixing, Method
from pwfn.seeds import generator
from pwfn.task import Task

log = logging.getLogger(__name__)

NAMES_SHOWN = 10
"""Most names of layers in a warning."""


class Gpfq(Method):
    """Path-following quantisation of a task's network: one round that fixes all weights.

    Layers are quantised in the order in which they run. Each uses its inputs in the float network and in the network
    whose earlier layers are already quantised. All replicas do the same work, on all calibration images and with the
    same random draws, so that all get the same network, whatever their number.
    """

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
        network = self.task.network
        alphabets = layer_alphabets(network, self.config)
        calibration = Calibration(network, self._images())
        treated, untreated = execution_order(network, list(alphabets), calibration.first_batch())
        if untreated:
            log.warning("gpfq: rounded to nearest, as path following cannot treat them: %s", summary(untreated))
        for layer in untreated:
            round_to_nearest_(network, layer, alphabets[layer])
        for layer in treated:
            self._follow_path_(layer, alphabets[layer], calibration)
            log.debug("gpfq: layer %s is done", layer.name)
        return Fixing.of_all(network, untreated_layers=tuple(layer.name for layer in untreated))

    def _images(self) -> list[Tensor]:
        """Batches of all calibration images, the same on every replica."""
        batches = self.task.data.batches(
            "train", batch_size=self.task.config.evaluation.batch_size, max_images=self.config.calibration_images
        )
        return [images for images, _ in batches]

    def _follow_path_(self, layer: FixableLayer, alphabets: LayerAlphabets, calibration: Calibration) -> None:
        """Quantise one layer in place; a bias counts as the weight of a further, last feature that is always 1."""
        call = calibration.first_call(layer)
        parameters = layer.parameters(self.task.network)
        weights = torch.cat([call.matrices(parameter) for parameter in parameters], dim=-1).double()
        inputs = self._inputs(layer, call.num_features, calibration)
        order = torch.arange(weights.shape[-1], device=weights.device).expand(len(weights), -1)
        if self.config.order == "activation":
            order = activation_order(inputs.energies(), has_constant="bias" in layer.own)
        levels = follow_path_in_order(inputs, order, weights, self._quantizers(layer, alphabets, call.num_features))
        parts = torch.split(levels, [call.num_features, 1][: len(parameters)], dim=-1)
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def _quantizers(self, layer: FixableLayer, alphabets: LayerAlphabets, num_features: int) -> list[Quantize]:
        """Build a quantiser for each weight of a neuron, and for the bias, if any, one without `sparsify`."""
        draws = generator(self.task.device, self.task.config.seed, "rounding", layer.name)
        of_weight = quantizer(alphabets.weight, self.config, draws)
        of_bias = quantizer(alphabets.bias, self.config.model_copy(update={"sparsify": "none"}), draws)
        return [of_weight] * num_features + [of_bias] * (len(layer.own) - 1)

    def _inputs(self, layer: FixableLayer, num_features: int, calibration: Calibration) -> LayerInputs:
        limit = self.config.max_gram_features
        if num_features <= limit:
            return calibration.grams(layer)
        draws = generator(torch.device("cpu"), self.task.config.seed, "samples", layer.name)
        samples = calibration.samples(layer, limit, draws)
        log.warning(
            "gpfq: layer %s has %d features, above max_gram_features=%d: done sample by sample on %d samples",
            layer.name,
            num_features,
            limit,
            samples.inputs.shape[2],
        )
        return samples


def summary(layers: Sequence[FixableLayer]) -> str:
    """Name the first layers and give the number of the others."""
    names = ", ".join(layer.name for layer in layers[:NAMES_SHOWN])
    return names if len(layers) <= NAMES_SHOWN else f"{names} and {len(layers) - NAMES_SHOWN} more"
