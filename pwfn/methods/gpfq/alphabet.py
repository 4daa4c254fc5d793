"""The alphabets of GPFQ and MSQ, evenly spaced levels around zero, and the rounding of numbers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pwfn.config import AlphabetConfig, GpfqConfig
from pwfn.parameters import quantile

Quantize = Callable[[Tensor], Tensor]
"""Maps float64 arguments of any shape to levels of the same shape: float64 numbers that float32 holds exactly."""


@dataclass(frozen=True)
class Alphabet:
    """The levels n * step_size for the integers |n| <= num_positive; if step_size is 0, zero is the only level."""

    step_size: float
    num_positive: int

    def nearest(self, arguments: Tensor) -> Tensor:
        """Map each argument to the nearest level, and one halfway between two levels to the level with the even n."""
        return self.level(arguments.abs(), torch.round).copysign(arguments) + 0.0  # no negative zero

    def level(self, magnitudes: Tensor, to_integer: Callable[[Tensor], Tensor], offset: float = 0.0) -> Tensor:
        """Map magnitudes m to `offset + n * step_size`, where n is to_integer(m / step_size), at most num_positive.

        Args:
            magnitudes: not negative, of any shape.
            to_integer: rounds numbers to integers, for example `torch.round`.
            offset: added to every level.
        """
        if self.step_size == 0:
            return torch.zeros_like(magnitudes)
        levels = to_integer(magnitudes.double() / self.step_size).clamp(max=self.num_positive) * self.step_size + offset
        return levels.float().to(magnitudes.dtype)

    def reaches(self, magnitude: float) -> bool:
        """Whether a number is at most half a step beyond the last level: cut off, it moves no more than by rounding."""
        return magnitude <= (self.num_positive + 0.5) * self.step_size


@dataclass(frozen=True)
class LayerAlphabets:
    """Levels of a layer's weights and of its bias: the same alphabet unless the bias is too large for it."""

    weight: Alphabet
    bias: Alphabet


def alphabets_of(
    weights: Sequence[Sequence[Tensor]], biases: Sequence[Tensor], config: AlphabetConfig
) -> Sequence[LayerAlphabets]:
    """Build the alphabets of each layer.

    The papers do not quantise biases. Here the biases of a layer share the alphabet of its weights if it reaches the
    largest bias. Otherwise they have an alphabet with as many levels, up to the largest bias, because a bias that is
    cut off shifts its whole neuron. (A ResNet-20 with BatchNorm folded into its convolutions, 4 bits, 1,000 test
    images: 64.2 % with biases cut off, 92.2 % with their own alphabet.) Tables of attention biases, which belong to no
    weights, also have an alphabet of their own.

    Args:
        weights: for each layer its weight tensors, `(neurons, features)`.
        biases: for each layer its biases, `(num_biases,)`, which may be empty.
        config: bits, scale and radius of the alphabets.
    """
    rows = [[weight.detach().abs() for weight in of_layer] for of_layer in weights]
    if config.shared_alphabet:
        together = [row for of_layer in rows for row in of_layer]
        return [_layer_alphabets(together, torch.cat(list(biases)), config)] * len(rows)
    return [_layer_alphabets(row, bias, config) for row, bias in zip(rows, biases, strict=True)]


def _layer_alphabets(magnitudes: Sequence[Tensor], biases: Tensor, config: AlphabetConfig) -> LayerAlphabets:
    num_positive = 2 ** (config.bits - 1)
    radius = _radius(magnitudes, config) if magnitudes else 0.0
    weight = Alphabet(config.scale * radius / num_positive, num_positive)
    farthest = float(biases.detach().abs().max()) if biases.numel() else 0.0
    return LayerAlphabets(
        weight, weight if weight.reaches(farthest) else Alphabet(farthest / num_positive, num_positive)
    )


def _radius(magnitudes: Sequence[Tensor], config: AlphabetConfig) -> float:
    """Radius of the alphabet for some |weights|, `(neurons, features)` each, before the factor C (`scale`)."""
    if config.radius == "median":
        return float(quantile(torch.cat([rows.flatten() for rows in magnitudes]), 0.5))
    return float(torch.cat([quantile(rows, config.percentile) for rows in magnitudes]).mean())


def quantizer(alphabet: Alphabet, config: GpfqConfig, generator: torch.Generator) -> Quantize:
    """Build the scalar quantiser Q_A, with the variants of the follow-up (section 4).

    Stochastic rounding goes up or down with probabilities that make it unbiased within the range of the alphabet.
    `sparsify: l1` first shrinks the argument towards zero by the threshold. `l0` maps arguments up to the threshold to
    zero and rounds the excess of all others, so that its levels are 0 and +-(threshold + n * step_size).
    """

    def to_integer(steps: Tensor) -> Tensor:
        if config.rounding == "nearest":
            return steps.round()
        # With float64 draws from [0, 1) an integer practically never moves to the next one.
        return (steps + torch.rand(steps.shape, generator=generator, dtype=steps.dtype, device=steps.device)).floor()

    threshold = 0.0 if config.sparsify == "none" else config.threshold
    offset = threshold if config.sparsify == "l0" else 0.0

    def quantize(arguments: Tensor) -> Tensor:
        excess = arguments.abs() - threshold
        levels = alphabet.level(excess.clamp(min=0), to_integer, offset)
        return torch.where(excess > 0, levels, 0.0).copysign(arguments) + 0.0  # no negative zero

    return quantize
