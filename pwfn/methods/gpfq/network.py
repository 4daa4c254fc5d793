"""Path following or GPTQ through all layers of a network, for any levels: evenly spaced, or a codebook."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pwfn.config import LayerwiseAlgorithm
from pwfn.errors import UserError
from pwfn.methods.gpfq.alphabet import Quantize
from pwfn.methods.gpfq.calibration import Calibration
from pwfn.methods.gpfq.layers import FixableLayer, execution_order, fixable_layers
from pwfn.methods.gpfq.path_following import LayerInputs, activation_order, quantize_in_order
from pwfn.methods.qat.assignment import edges_between
from pwfn.seeds import generator
from pwfn.task import Task

log = logging.getLogger(__name__)

MAX_GRAM_FEATURES = 8192
"""A layer with more features has no Gram matrices, which would need too much memory, but samples of its inputs."""
NAMES_SHOWN = 10
"""Most names of layers in a warning."""
SECONDS_BETWEEN_REPORTS = 5.0

Quantizers = Callable[[FixableLayer], Sequence[Quantize]]
"""Gives the quantiser of each parameter of a layer, in the order of `FixableLayer.own`."""


class LayerwiseQuantization:
    """Quantises the layers of a task's network in the order in which they run.

    Each layer uses its inputs in the float network and in the network whose earlier layers are already quantised. All
    replicas do the same work, on all calibration images and with the same random draws, so that all get the same
    network, whatever their number.

    Args:
        task: its network is quantised in place, and left in evaluation mode; as it is now, it is the float network.
        calibration_images: number of training images, without augmentation.
        in_activation_order: quantise the features with the largest inputs first, not as they are stored.
        max_gram_features: layers with more features are quantised on this many samples of their inputs, by path
            following.
        algorithm: by which the layers are quantised.
    """

    def __init__(
        self,
        task: Task,
        *,
        calibration_images: int,
        in_activation_order: bool,
        max_gram_features: int = MAX_GRAM_FEATURES,
        algorithm: LayerwiseAlgorithm = "path_following",
    ) -> None:
        self.task = task
        self.algorithm = algorithm
        self.in_activation_order = in_activation_order
        self.max_gram_features = max_gram_features
        batch_size = max(1, task.config.evaluation.batch_size // task.micro_batches)
        batches = task.data.batches("train", batch_size=batch_size, max_images=calibration_images)
        self.calibration = Calibration(task.network, [images.cpu() for images, _ in batches])

    @torch.no_grad()
    def quantize_(self, quantizers: Quantizers, round_: Callable[[FixableLayer], None]) -> list[FixableLayer]:
        """Quantise every layer.

        Args:
            quantizers: those of a layer's weight, and of its bias if it has one.
            round_: rounds a layer that cannot be treated so, in place; all of them are rounded first.

        Returns:
            The layers that cannot be treated so: those that are no plain linear map, or run more than once.

        Raises:
            UserError: a layer does not run for all images, or its inputs are not finite.
        """
        network, calibration = self.task.network, self.calibration
        treated, untreated = execution_order(network, fixable_layers(network), calibration.first_batch())
        if untreated:
            names = _some_names(untreated)
            log.warning("%s: rounded to nearest, as %s cannot treat them: %s", self._method, self._named, names)
        for layer in untreated:
            round_(layer)
        begun = reported = time.monotonic()
        for done, layer in enumerate(treated, start=1):
            self._quantize_layer_(layer, quantizers(layer))
            now = time.monotonic()
            if now - reported >= SECONDS_BETWEEN_REPORTS:
                log.info("%s: %s, %d of %d layers, %.1f s", self._method, self._named, done, len(treated), now - begun)
                reported = now
        return untreated

    @property
    def _method(self) -> str:
        return self.task.config.method.name

    @property
    def _named(self) -> str:
        return {"path_following": "path following", "gptq": "GPTQ"}[self.algorithm]

    def _quantize_layer_(self, layer: FixableLayer, quantizers: Sequence[Quantize]) -> None:
        """Quantise one layer in place; a bias counts as the weight of a further, last feature that is always 1."""
        call = self.calibration.first_call(layer)
        parameters = layer.parameters(self.task.network)
        widths = [call.num_features, 1][: len(parameters)]
        weights = torch.cat([call.matrices(parameter) for parameter in parameters], dim=-1).double()
        inputs = self._inputs(layer, call.num_features)
        if not inputs.are_finite():
            raise UserError(
                f"{self._method}: the inputs of layer {layer.name} hold NaN or infinity on the calibration images, so "
                f"{self._named} cannot treat it; look at the float network, or take the nearest values (kmeans: "
                "method.assignment=nearest, qat: method.stage_start=latent, gpfq: method.name=msq)"
            )
        order = torch.arange(weights.shape[-1], device=weights.device).expand(len(weights), -1)
        if self.in_activation_order:
            order = activation_order(inputs.energies(), has_constant="bias" in layer.own)
        of_features = [each for each, width in zip(quantizers, widths, strict=True) for _ in range(width)]
        levels = quantize_in_order(inputs, order, weights, of_features, self.algorithm)
        for parameter, part in zip(parameters, torch.split(levels, widths, dim=-1), strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def _inputs(self, layer: FixableLayer, num_features: int) -> LayerInputs:
        limit = self.max_gram_features
        if num_features <= limit:
            return self.calibration.grams(layer)
        draws = generator(torch.device("cpu"), self.task.config.seed, "samples", layer.name)
        samples = self.calibration.samples(layer, limit, draws)
        log.warning(
            "%s: layer %s has %d features, above max_gram_features=%d: done sample by sample on %d samples%s",
            self._method,
            layer.name,
            num_features,
            limit,
            samples.inputs.shape[2],
            "" if self.algorithm == "path_following" else ", by path following",
        )
        return samples


def assign_layerwise_(
    task: Task, codebook_of: Callable[[Tensor], Tensor], algorithm: LayerwiseAlgorithm, *, calibration_images: int
) -> list[FixableLayer]:
    """Give each weight of a task's network a value of a codebook, layer by layer, largest inputs first.

    Args:
        task: its network is quantised in place.
        codebook_of: gives the ascending values that a parameter of the network may have, float32 `(num_values,)`.
        algorithm: by which the layers are quantised.
        calibration_images: number of training images, without augmentation.

    Returns:
        The layers that cannot be treated so; their weights have the nearest values.

    Raises:
        UserError: a layer does not run for all images.
    """

    def quantizers(layer: FixableLayer) -> list[Quantize]:
        return [_nearest_of(codebook_of(parameter)) for parameter in layer.parameters(task.network)]

    def round_(layer: FixableLayer) -> None:
        for parameter, quantize in zip(layer.parameters(task.network), quantizers(layer), strict=True):
            parameter.copy_(quantize(parameter.double()))

    layerwise = LayerwiseQuantization(
        task, calibration_images=calibration_images, in_activation_order=True, algorithm=algorithm
    )
    return layerwise.quantize_(quantizers, round_)


def _nearest_of(values: Tensor) -> Quantize:
    """Build a quantiser that maps each argument to the nearest of ascending values `(num_values,)`."""
    levels = values.double()
    edges = edges_between(levels)
    return lambda arguments: levels[torch.bucketize(arguments, edges)]


def _some_names(layers: Sequence[FixableLayer]) -> str:
    """Name the first layers and give the number of the others."""
    names = ", ".join(layer.name for layer in layers[:NAMES_SHOWN])
    return names if len(layers) <= NAMES_SHOWN else f"{names} and {len(layers) - NAMES_SHOWN} more"
