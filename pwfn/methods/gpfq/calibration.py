"""The inputs of a layer that path following needs, collected batch by batch over the calibration images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pwfn.errors import UserError
from pwfn.methods.gpfq.layers import FixableLayer, LayerCall, call_of
from pwfn.methods.gpfq.path_following import Grams, Samples


class Calibration:
    """A copy of the float network, the network that is being quantised, and the images that both are run on.

    For every layer all images pass through both networks up to that layer. The device holds one batch and the sums or
    samples that are collected; all images stay in the memory of the host.

    Args:
        network: to be quantised in place; it is put into evaluation mode.
        batches: images `(batch, channels, height, width)`, at least one batch.
    """

    def __init__(self, network: nn.Module, batches: Sequence[Tensor]) -> None:
        self.network = network.eval()
        self.original = deepcopy(network)
        self.batches = [batch.cpu() for batch in batches]
        self.device = batches[0].device

    def first_batch(self) -> Tensor:
        """Return the first batch, on the device."""
        return self.batches[0].to(self.device)

    def first_call(self, layer: FixableLayer) -> LayerCall:
        """Return the call of a layer on the first batch, in the network that is being quantised."""
        return _call(self.network, layer, self.first_batch())

    def grams(self, layer: FixableLayer) -> Grams:
        """Sum the Gram matrices over all samples; for a layer with a bias the last feature is the constant 1.

        The matrix product of each piece of a batch is float32 and the sum of the products is float64. On the trained
        ResNet-20 (4 bits, 500 images) this gave the same 268,346 levels as float64 products, in half the time.

        Raises:
            UserError: the layer did not run for some batch.
        """
        cross, gram = torch.zeros(2, 1, dtype=torch.float64, device=self.device)
        for float_inputs, inputs in self._pieces(layer):
            cross = cross + inputs @ float_inputs.mT
            gram = gram + inputs @ inputs.mT
        return Grams(cross, gram)

    def samples(self, layer: FixableLayer, max_samples: int, generator: torch.Generator) -> Samples:
        """Collect the samples themselves; for a layer with a bias the last feature is the constant 1.

        If there are more than `max_samples`, about that many are kept: the same share of each piece of a batch, drawn
        at random by `generator`, which is on the CPU.

        Raises:
            UserError: the layer did not run for some batch.
        """
        share = min(1.0, max_samples / sum(inputs.shape[2] for _, inputs in self._pieces(layer)))
        kept = []
        for pieces in self._pieces(layer):
            num_samples = pieces[0].shape[2]
            drawn = torch.randperm(num_samples, generator=generator)[: math.ceil(share * num_samples)].to(self.device)
            kept.append([piece[:, :, drawn] for piece in pieces])
        return Samples(*(torch.cat(parts, dim=2) for parts in zip(*kept, strict=True)))

    def _pieces(self, layer: FixableLayer) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of X and X~ for the same samples, `(groups, features, samples)` (see `path_following`)."""
        for batch in self.batches:
            images = batch.to(self.device)
            calls = [_call(network, layer, images) for network in (self.original, self.network)]
            for float_inputs, inputs in zip(*(call.samples() for call in calls), strict=True):
                if "bias" not in layer.own:
                    yield float_inputs, inputs
                else:
                    yield pad(float_inputs, (0, 0, 0, 1), value=1.0), pad(inputs, (0, 0, 0, 1), value=1.0)


def _call(network: nn.Module, layer: FixableLayer, images: Tensor) -> LayerCall:
    call = call_of(network, layer, images)
    if call is None:
        raise UserError(
            f"gpfq: layer {layer.name} ran for the first calibration images but not for others; "
            "only networks that run the same layers for every image can be calibrated"
        )
    return call
