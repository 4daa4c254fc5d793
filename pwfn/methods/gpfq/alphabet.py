"""The alphabets of GPFQ and MSQ: evenly spaced levels around zero, and how an argument becomes one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import AlphabetConfig, GpfqConfig
from pwfn.parameters import quantile

Quantize = Callable[[Tensor], Tensor]
"""Maps float64 arguments of any shape to levels, float64 numbers that float32 holds exactly."""


@dataclass(frozen=True)
class Alphabet:
    """The levels n * step for the integers |n| <= num_steps; with step 0 the zero alone."""

    step: float
    num_steps: int

    def nearest(self, arguments: Tensor) -> Tensor:
        """Map each argument to the nearest level; halfway ones to the level with the even n."""
        return self.level(arguments.abs(), torch.round).copysign(arguments) + 0.0  # no negative zero

    def level(self, magnitudes: Tensor, to_integer: Callable[[Tensor], Tensor], offset: float = 0.0) -> Tensor:
        """Map magnitudes to `offset + n * step` with n in [0, num_steps], by this way to make an integer."""
        if self.step == 0:
            return torch.zeros_like(magnitudes)
        levels = to_integer(magnitudes.double() / self.step).clamp(max=self.num_steps) * self.step + offset
        return levels.float().to(magnitudes.dtype)

    def reaches(self, magnitude: float) -> bool:
        """Whether cutting a number off at the last level costs no more than rounding does: half a step."""
        return magnitude <= (self.num_steps + 0.5) * self.step


@dataclass(frozen=True)
class LayerAlphabets:
    """What the weights and the bias of a layer may become; one alphabet for both unless the bias reaches too far."""

    weight: Alphabet
    bias: Alphabet


def alphabets_of(
    weights: Sequence[Sequence[Tensor]], biases: Sequence[Tensor], config: AlphabetConfig
) -> Sequence[LayerAlphabets]:
    """Build the alphabets of layers from the weights of each, `(neurons, features)`, and its biases, `(numbers,)`.

    The papers leave biases as they are. Here they share the alphabet of the weights as long as it reaches them, and
    else have one of as many levels up to the largest of them: a bias cut off shifts its whole neuron. (A ResNet-20
    with BatchNorm folded into its convolutions, 4 bits, 1,000 test images: 64.2 % with biases cut off, 92.2 % so.)
    Tables of attention biases, which belong to no weights, have the alphabet of such a bias.
    """
    rows = [[weight.detach().abs() for weight in of_layer] for of_layer in weights]
    if config.shared_alphabet:
        together = [row for of_layer in rows for row in of_layer]
        return [_layer_alphabets(together, torch.cat(list(biases)), config)] * len(rows)
    return [_layer_alphabets(row, bias, config) for row, bias in zip(rows, biases, strict=True)]


def _layer_alphabets(magnitudes: Sequence[Tensor], biases: Tensor, config: AlphabetConfig) -> LayerAlphabets:
    num_steps = 2 ** (config.bits - 1)
    radius = _radius(magnitudes, config) if magnitudes else 0.0
    weight = Alphabet(config.scale * radius / num_steps, num_steps)
    farthest = float(biases.detach().abs().max()) if biases.numel() else 0.0
    return LayerAlphabets(weight, weight if weight.reaches(farthest) else Alphabet(farthest / num_steps, num_steps))


def _radius(magnitudes: Sequence[Tensor], config: AlphabetConfig) -> float:
    """The radius of layers with these |weights|, `(neurons, features)` each, before the factor C."""
    if config.radius == "median":
        return float(quantile(torch.cat([rows.flatten() for rows in magnitudes]), 0.5))
    return float(torch.cat([quantile(rows, config.percentile) for rows in magnitudes]).mean())


def quantizer(alphabet: Alphabet, config: GpfqConfig, generator: torch.Generator) -> Quantize:
    """Build the scalar quantiser Q_A with the variants of the follow-up, section 4.

    Stochastic rounding goes up or down with the probability that makes it unbiased inside the alphabet's range.
    `l1` shrinks the argument towards zero by the threshold first. `l0` sends arguments up to the threshold to zero and
    rounds what exceeds it, so that its levels are 0 and +-(threshold + n * step).
    """

    def to_integer(steps: Tensor) -> Tensor:
        if config.rounding == "nearest":
            return steps.round()
        # Drawn on the device; a float64 in [0, 1) never rounds an integer up.
        return (steps + torch.rand(steps.shape, generator=generator, dtype=steps.dtype, device=steps.device)).floor()

    threshold = 0.0 if config.sparsify == "none" else config.threshold
    offset = threshold if config.sparsify == "l0" else 0.0

    def quantize(arguments: Tensor) -> Tensor:
        excess = arguments.abs() - threshold
        levels = alphabet.level(excess.clamp(min=0), to_integer, offset)
        return torch.where(excess > 0, levels, 0.0).copysign(arguments) + 0.0  # no negative zero

    return quantize
