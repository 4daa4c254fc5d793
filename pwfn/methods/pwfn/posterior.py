"""The Gaussian posterior N(mu, sigma) over a network's weights, behind flat buffers (PWFN, section 3).

The network itself is not changed: the weights of its layers are views of one buffer, which holds a drawn sample,
`mu + sigma * eps`. So a training step needs no Python code per layer, and autograd differentiates only the network. The
gradients of mu and sigma are computed by hand: d loss / d mu is the gradient g of the sample, and d loss / d sigma is
g * eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pwfn.config import PwfnConfig
from pwfn.descent import sum_of_squares
from pwfn.fused import fused
from pwfn.methods.pwfn.living import LivingWeights
from pwfn.parameters import (
    MIN_SIGMA,
    FlatParameters,
    as_factor,
    buffers_of,
    copied,
    in_pieces,
    quantile,
    restore_buffers_,
    split_parameters,
)

CONSTANT_SIGMA = 1e-4
"""Initial sigma of every weight with `prior: false`."""
LAPLACE_DAMPING = 0.01
"""This share of the mean Fisher information of a tensor is added to that of each weight. So no sigma is more than about
ten times the sigma of a weight with mean information; without it, weights that no image depends on would have sigmas
beyond all others."""
SOFTMIN_TEMPERATURE = 0.1
"""Temperature of the softmin in `regularization: linear_on_grad`."""


class Posterior:
    """mu and sigma of the N weights of the fixed set, and the M other parameters.

    `values` is `(2 N + M,)`: mu, sigma, the other parameters. `gradient` has the same layout. `mu` and `sigma` are
    views of `values`. `sample`, the weights that the network has, and `eps` are `(N,)`. All of these have the network's
    data type; `fixed` is bool `(N,)`. `eps` uses the memory of sigma's gradient: after the backward pass it is turned
    into that gradient in place.
    """

    def __init__(self, network: nn.Module, config: PwfnConfig) -> None:
        sets = split_parameters(network)
        fixable, rest = list(sets.fixable.values()), list(sets.rest.values())
        self.network = network
        self.config = config
        self.num_weights = sets.num_fixable
        self.values = fixable[0].new_empty(2 * self.num_weights + sum(p.numel() for p in rest), requires_grad=False)
        self.gradient = torch.zeros_like(self.values)
        self.mu, self.sigma, rest_values = self._parts(self.values)
        self.mu_gradient, self.sigma_gradient, rest_gradient = self._parts(self.gradient)
        self.weights = FlatParameters(fixable, gradient=self.mu_gradient)
        self.rest = FlatParameters(rest, rest_values, rest_gradient)
        self.flats = (self.weights, self.rest)
        self.sample = self.weights.values
        self.mu.copy_(self.sample)
        for parameter, sigma in zip(fixable, self.weights.views(self.sigma), strict=True):
            sigma.copy_(initial_sigma(parameter.detach().reshape(-1), config).view(sigma.shape))
        self.living = LivingWeights(self.mu) if config.fixed_weights == "live" else None
        """Values and limits of fixed weights with `fixed_weights: live`; None with `hold`, where mu is their value."""
        self.eps = self.sigma_gradient
        self.fixed = torch.zeros_like(self.mu, dtype=torch.bool)
        self._is_bias = torch.zeros_like(self.fixed)
        for parameter, piece in zip(fixable, self.weights.pieces(self._is_bias), strict=True):
            piece.fill_(parameter.ndim == 1)

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.num_weights
        return flat[:n], flat[n : 2 * n], flat[2 * n :]

    def start_from_fisher_(self, fisher: Tensor) -> None:
        """Set sigma from what `diagonal_fisher` returned, `(N,)`, instead of the paper's initial sigma."""
        for sigma, of_tensor in zip(self.weights.views(self.sigma), self.weights.pieces(fisher), strict=True):
            sigma.copy_(laplace_sigma(of_tensor, self.config).view(sigma.shape))

    def draw_(self, generator: torch.Generator) -> None:
        """Draw a sample of the weights and give it to the network: one sample for the whole batch."""
        self.eps.normal_(generator=generator)
        for pieces in in_pieces(self.sample, self.mean(), self.sigma, self.eps):
            sample_(*pieces)

    def mean(self) -> Tensor:
        """The weights without noise, `(N,)`: mu, or for living weights their values."""
        return self.mu if self.living is None else self.living.shown(self.mu, self.fixed)

    def show_mean_(self) -> None:
        """Give the network the weights without noise: for evaluation, and for training without noise."""
        self.sample.copy_(self.mean())

    def limit_(self) -> None:
        """Move living weights' latent weights back to within their reach; to be called after every training step."""
        if self.living is not None:
            self.living.limit_(self.mu, self.fixed)

    def pulled(self) -> Tensor:
        """The weights whose sigma the regulariser pulls, bool `(N,)`: neither fixed weights nor biases."""
        return (self.fixed | self._is_bias).logical_not_()

    def fill_sigma_gradient_(self, pulled: Tensor) -> None:
        """Compute the gradient of sigma from the gradient of the drawn sample (PWFN, section 3.2).

        It includes the regulariser, which pulls sigma up towards `sigma_target`. Call this once after each backward
        pass, before anything changes the gradient of mu.

        Args:
            pulled: what `pulled` returned when weights were fixed last.
        """
        parts = (self.sigma_gradient, self.mu_gradient, self.sigma, pulled)
        together = self.config.regularization == "linear_on_grad"  # its softmin runs over all weights at once
        for pieces in [parts] if together else in_pieces(*parts):
            sigma_gradient_(*pieces, **self._regularization)

    def fill_sigma_gradient_and_square_(self, pulled: Tensor, free: Tensor | None) -> Tensor:
        """Do the same, and sum the squares of the gradients of mu, sigma and all other parameters.

        Args:
            pulled: as above.
            free: what the sum counts, bool `(2 N + M,)`; None: all.

        Returns:
            A scalar.
        """
        gradients = (self.sigma_gradient, self.mu_gradient, self.rest.gradient)
        if self.config.regularization == "linear_on_grad":
            self.fill_sigma_gradient_(pulled)
            return sum_of_squares(self.gradient, free)
        mu, sigma, rest = (None, None, None) if free is None else self._parts(free)
        return sigma_gradient_and_square_(*gradients, self.sigma, pulled, (sigma, mu, rest), **self._regularization)

    @property
    def _regularization(self) -> dict[str, Any]:
        config = self.config
        return {
            "kind": config.regularization,
            "strength": config.regularization_strength,
            "target": config.sigma_target,
        }

    def held(self, *, mu: bool = True, sigma: bool = True) -> Tensor:
        """Mark what must not move, bool `(2 N + M,)`: fixed weights, and everything that is not to be trained.

        The mu of living weights may move although they are fixed. With `sigma_join: allow_retraining` the sigma of a
        fixed weight may move.

        Args:
            mu: whether mu and the M other parameters are trained.
            sigma: whether sigma is trained.
        """
        held = torch.zeros_like(self.values, dtype=torch.bool)
        held_mu, held_sigma, held_rest = self._parts(held)
        if not mu:
            held_mu.fill_(True)
        elif self.living is None:
            held_mu.copy_(self.fixed)
        if self.config.sigma_join != "allow_retraining":
            held_sigma.copy_(self.fixed)
        if not sigma:
            held_sigma.fill_(True)
        held_rest.fill_(not mu)
        return held

    def state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of the tensors that `load_state` needs, BatchNorm's buffers included."""
        living = {} if self.living is None else self.living.state()
        return copied({"values": self.values, "fixed": self.fixed, **buffers_of(self.network), **living})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned, for the same network and configuration."""
        self.values.copy_(state["values"])
        self.fixed.copy_(state["fixed"])
        if self.living is not None:
            self.living.load_state(state)
        restore_buffers_(self.network, state)
        self.show_mean_()


@fused
def sample_(sample: Tensor, mean: Tensor, sigma: Tensor, eps: Tensor) -> None:
    """Write a drawn sample of the weights; all tensors `(n,)`."""
    torch.clamp(sigma, min=MIN_SIGMA, out=sample)
    torch.addcmul(mean, sample, eps, out=sample)


@torch.no_grad()
def sigma_gradient_(
    gradient: Tensor, of_mu: Tensor, sigma: Tensor, pulled: Tensor, *, kind: str, strength: float, target: float
) -> None:
    """Turn the noise of the step, in `gradient`, into the gradient of sigma, in place; all tensors `(n,)`.

    Args:
        gradient: eps before, and after it the gradient of sigma.
        of_mu: gradient of the drawn sample.
        sigma: the parameter, which may lie below MIN_SIGMA.
        pulled: bool, the weights on which the regulariser acts.
        kind: of regulariser; see `regularize_`.
        strength: of the regulariser.
        target: of the regulariser.
    """
    magnitude = gradient.abs()
    # Below MIN_SIGMA the draw uses MIN_SIGMA itself, which does not depend on sigma: the gradient is 0 there.
    gradient.mul_(of_mu).mul_(as_factor(sigma >= MIN_SIGMA, gradient))
    regularize_(kind, gradient, sigma, magnitude, pulled, strength=strength, target=target)


@fused
def sigma_gradient_and_square_(
    gradient: Tensor,
    of_mu: Tensor,
    of_rest: Tensor,
    sigma: Tensor,
    pulled: Tensor,
    free: tuple[Tensor | None, Tensor | None, Tensor | None],
    *,
    kind: str,
    strength: float,
    target: float,
) -> Tensor:
    """Do the same as `sigma_gradient_`, and sum the squares of the three gradients where each is free (None: all)."""
    sigma_gradient_(gradient, of_mu, sigma, pulled, kind=kind, strength=strength, target=target)
    squares = [
        (each if of is None else each * as_factor(of, each)).square().sum()
        for each, of in zip((gradient, of_mu, of_rest), free, strict=True)
    ]
    return squares[0] + squares[1] + squares[2]


def initial_sigma(weights: Tensor, config: PwfnConfig) -> Tensor:
    """Give each weight of one tensor `(n,)` the sigma it starts with (PWFN, section 3.1).

    A weight far from its two neighbouring powers of two may move more: sigma is proportional to the product of its
    relative distances to them, scaled so that the tensor's 75 % quantile is `sigma_scale`. It is at least MIN_SIGMA,
    which zeros and powers of two get, and at most `sigma_target`. If the quantile is zero, all weights get MIN_SIGMA.
    With `prior: false` every weight gets CONSTANT_SIGMA.
    """
    if not config.prior:
        return torch.full_like(weights, CONSTANT_SIGMA)
    mantissa, _ = torch.frexp(weights.abs())  # in [1/2, 1), or 0
    x = 2 * mantissa
    product = torch.where(weights != 0, (x - 1) * (2 - x) / x.clamp(min=1) ** 2, 0)
    scale = quantile(product, 0.75)
    if scale == 0:
        return torch.full_like(weights, MIN_SIGMA)
    return (config.sigma_scale / scale * product).clamp(MIN_SIGMA, config.sigma_target)


def laplace_sigma(fisher: Tensor, config: PwfnConfig) -> Tensor:
    """Give each weight of one tensor the sigma of its Laplace posterior, up to a factor that all weights share.

    A weight that the predictions hardly depend on may move more: sigma is proportional to 1 / sqrt(fisher + damping).
    Scale and limits are those of `initial_sigma`. Weights with equal information get equal sigmas, also zeros.

    Args:
        fisher: Fisher information of each weight of the tensor, `(n,)`.
        config: gives the scale and the largest sigma.
    """
    mean = fisher.mean()
    width = (torch.where(mean > 0, fisher / mean, 0) + LAPLACE_DAMPING).rsqrt()
    return (config.sigma_scale / quantile(width, 0.75) * width).clamp(MIN_SIGMA, config.sigma_target)


def regularize_(
    kind: str, gradient: Tensor, sigma: Tensor, magnitude: Tensor, pulled: Tensor, *, strength: float, target: float
) -> None:
    """Subtract the sigma regulariser from the gradient of sigma, in place; all tensors `(N,)` (PWFN, section 3.2).

    Args:
        kind: `linear` subtracts strength (target - sigma) |eps|; `exponential` has exp(target - sigma) - 1 in the place
            of the difference. `linear_on_grad` changes the gradients of the sigmas below `target`: it takes their
            magnitude, or 0 for a sigma at MIN_SIGMA, and subtracts strength times the weight's share in a softmin over
            |gradient| (1 - |eps|).
        gradient: of the loss with respect to sigma.
        sigma: the parameter, which may lie below MIN_SIGMA.
        magnitude: |eps|, of the noise of this step.
        pulled: bool, the weights on which the regulariser acts.
        strength: the paper's lambda.
        target: the paper's S; a sigma above it is not pulled.
    """
    if kind == "linear_on_grad":
        below = pulled & (sigma < target)
        gradient.copy_(torch.where(below, gradient.abs(), gradient)).masked_fill_(below & (sigma <= MIN_SIGMA), 0)
        logits = torch.where(below, -gradient.abs() * (1 - magnitude) / SOFTMIN_TEMPERATURE, -torch.inf)
        share = torch.where(below, logits.softmax(dim=0), 0)  # the softmax is NaN if no sigma is below
        gradient.sub_(share, alpha=strength)
        return
    gap = (target - sigma).relu_()
    pull = gap if kind == "linear" else gap.expm1_()
    gradient.addcmul_(pull.mul_(magnitude), as_factor(pulled, gradient), value=-strength)
