"""The Gaussian posterior N(mu, sigma) over a network's weights, behind flat buffers (PWFN, section 3).

The network itself stays plain: its convolutions and linear layers see one drawn sample, `mu + sigma * eps`, through
views of one buffer, so a step needs no per-layer Python and autograd differentiates nothing but the network.
The gradients follow by hand: d loss / d mu is the sample's gradient g, and d loss / d sigma is g * eps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pwfn.config import PwfnConfig
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
"""Initial sigma without a prior."""
LAPLACE_DAMPING = 0.01
"""Added to the Fisher information, times its mean over the tensor: no sigma is more than ten times that of a weight of
mean information. Without it weights that no image reaches would take the whole scale."""
SOFTMIN_TEMPERATURE = 0.1
"""Temperature of `linear_on_grad`."""


class Posterior:
    """mu and sigma of every weight of the fixed set, and the rest of the parameters beside them.

    `values` is `(2 N + M,)`: mu, then sigma, of the N weights, then the M other parameters; `gradient` has the same
    layout. `mu`, `sigma` are views of it, `sample` and `eps` are `(N,)`, all of the network's own type; `fixed` is bool
    `(N,)`. `eps` lies where the gradient of sigma will be: it becomes that gradient, in place, after the backward pass.
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
        self.sample = self.weights.values
        self.mu.copy_(self.sample)
        for parameter, piece in zip(fixable, self.weights.pieces(self.sigma), strict=True):
            piece.copy_(initial_sigma(parameter.detach().reshape(-1), config))
        self.living = LivingWeights(self.mu) if config.fixed_weights == "live" else None
        """What fixed weights show where they go on living; None: their mu is their value."""
        self.eps = self.sigma_gradient
        self.fixed = torch.zeros_like(self.mu, dtype=torch.bool)
        self._is_bias = torch.zeros_like(self.fixed)
        for parameter, piece in zip(fixable, self.weights.pieces(self._is_bias), strict=True):
            piece.fill_(parameter.ndim == 1)

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.num_weights
        return flat[:n], flat[n : 2 * n], flat[2 * n :]

    def start_from_fisher_(self, fisher: Tensor) -> None:
        """Let sigma start from the Fisher information of every weight, `(N,)`, instead of the paper's prior."""
        for sigma, of_tensor in zip(self.weights.pieces(self.sigma), self.weights.pieces(fisher), strict=True):
            sigma.copy_(laplace_sigma(of_tensor, self.config))

    def draw_(self, generator: torch.Generator) -> None:
        """Show the network one sample: a single weight tensor per layer for the whole batch."""
        self.eps.normal_(generator=generator)
        torch.clamp(self.sigma, min=MIN_SIGMA, out=self.sample)
        torch.addcmul(self.mean(), self.sample, self.eps, out=self.sample)

    def mean(self) -> Tensor:
        """What the weights show without noise, `(N,)`: mu, or the values of fixed weights that go on living."""
        return self.mu if self.living is None else self.living.shown(self.mu, self.fixed)

    def show_mean_(self) -> None:
        """Show the network the mean: for evaluation, and for training without noise."""
        self.sample.copy_(self.mean())

    def limit_(self) -> None:
        """Take latent weights that have gone too far back to within their reach; to be called after every step."""
        if self.living is not None:
            self.living.limit_(self.mu, self.fixed)

    @torch.no_grad()
    def fill_sigma_gradient_(self) -> None:
        """Form the gradient of sigma from that of the drawn sample, regulariser included (PWFN, section 3.2).

        The regulariser pulls sigma up towards `sigma_target`. It acts on weights that are not yet fixed, not on
        biases. Call it once after the backward pass and before anything changes the gradient of mu.
        """
        config = self.config
        parts = (self.sigma_gradient, self.mu_gradient, self.sigma, self.fixed, self._is_bias)
        together = config.regularization == "linear_on_grad"  # its softmin is over all weights
        for gradient, gradient_of_mu, sigma, fixed, is_bias in [parts] if together else in_pieces(*parts):
            magnitude = gradient.abs()  # it was eps until here
            # Below MIN_SIGMA the draw uses MIN_SIGMA itself, which does not depend on sigma: the gradient is 0 there.
            gradient.mul_(gradient_of_mu).mul_(as_factor(sigma >= MIN_SIGMA, gradient))
            regularize_(
                config.regularization,
                gradient,
                sigma,
                magnitude,
                (fixed | is_bias).logical_not_(),
                strength=config.regularization_strength,
                target=config.sigma_target,
            )

    def held(self, *, mu: bool = True, sigma: bool = True) -> Tensor:
        """Mark what must not move, bool `(2 N + M,)`: the fixed weights, and a whole part where it is not trained.

        Fixed weights that go on living move. With the sigma join `allow_retraining` the sigma of a fixed weight keeps
        training. The other parameters train with mu.
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
        """Everything a later process needs to go on: copies on the CPU, BatchNorm's buffers included."""
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


def initial_sigma(weights: Tensor, config: PwfnConfig) -> Tensor:
    """Give each weight of one tensor `(n,)` the sigma it starts with (PWFN, section 3.1).

    A weight far from its two neighbouring powers of two may move more: sigma is proportional to the product of its
    relative distances to them, scaled so that the tensor's 75 % quantile is `sigma_scale`. Exact zeros and powers of
    two, and tensors of nothing else, get the floor; without a prior every weight gets the same.
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
    """Give each weight of one tensor `(n,)` the sigma of its Laplace posterior, up to one factor for all of them.

    A weight that the predictions hardly depend on may move more: sigma is proportional to 1 / sqrt(fisher + damping),
    scaled and bounded as the paper's. Weights of equal information get equal sigmas, exact zeros included.
    """
    mean = fisher.mean()
    width = (torch.where(mean > 0, fisher / mean, 0) + LAPLACE_DAMPING).rsqrt()
    return (config.sigma_scale / quantile(width, 0.75) * width).clamp(MIN_SIGMA, config.sigma_target)


def regularize_(
    kind: str, gradient: Tensor, sigma: Tensor, magnitude: Tensor, pulled: Tensor, *, strength: float, target: float
) -> None:
    """Subtract the sigma regulariser from the gradient of sigma, in place; all tensors `(N,)` (PWFN, section 3.2).

    Args:
        kind: `linear` pulls in proportion to the distance below `target`, `exponential` to its exponential less one,
            both times |eps|. `linear_on_grad` turns the negative gradients of sigmas below the target positive,
            drops those at the floor, and shares one pull among those sigmas by a softmin over |gradient|(1 - |eps|).
        gradient: of the loss with respect to sigma.
        sigma: the raw parameter.
        magnitude: |eps|, of the noise of this step.
        pulled: which weights the regulariser acts on, bool.
        strength: the paper's lambda.
        target: the paper's S; nothing is pulled beyond it.
    """
    if kind == "linear_on_grad":
        below = pulled & (sigma < target)
        gradient.copy_(torch.where(below, gradient.abs(), gradient)).masked_fill_(below & (sigma <= MIN_SIGMA), 0)
        logits = torch.where(below, -gradient.abs() * (1 - magnitude) / SOFTMIN_TEMPERATURE, -torch.inf)
        share = torch.where(below, logits.softmax(dim=0), 0)  # NaN where nothing is below
        gradient.sub_(share, alpha=strength)
        return
    gap = (target - sigma).relu_()
    pull = gap if kind == "linear" else gap.expm1_()
    gradient.addcmul_(pull.mul_(magnitude), as_factor(pulled, gradient), value=-strength)
