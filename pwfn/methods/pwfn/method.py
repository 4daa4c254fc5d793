"""PWFN: training under learned weight noise, in turn with fixing more and more weights (PWFN, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pwfn.codebook import Codebook
from pwfn.config import PwfnConfig
from pwfn.descent import Descent
from pwfn.methods.kmeans.method import finite_array, relative_importance
from pwfn.methods.kmeans.optimal import DoubleArray
from pwfn.methods.kmeans.values import kmeans_values
from pwfn.methods.pwfn.clustering import ClusterRound, cluster_round, nearest_round
from pwfn.methods.pwfn.clustering.intervals import SMALLEST_SIGMA
from pwfn.methods.pwfn.living import LivingWeights
from pwfn.methods.pwfn.posterior import Posterior
from pwfn.methods.pwfn.settling import LivingLearner, SharedValuesLearner
from pwfn.methods.rounds import Fixing, Method, State
from pwfn.parameters import copied, quantiles, split_parameters
from pwfn.task import Task, epochs_and_steps
from pwfn.training import Learner, evaluate_ensemble

SIGMA_QUANTILES = {"sigma_q05": 0.05, "sigma_q25": 0.25, "sigma_q50": 0.5, "sigma_q75": 0.75, "sigma_q95": 0.95}
"""Quantiles of sigma that each round records, by the names of their columns."""


@dataclass(frozen=True)
class Run:
    """Epochs that one optimiser trains."""

    labels: Sequence[str]
    """Of the epochs; each seeds its epoch's order of images."""
    num_steps: int
    """In each epoch."""
    mu: bool = True
    """Whether the weights and the parameters outside the fixed set train."""
    sigma: bool = True
    """Whether the sigmas train."""


class Pwfn(Method):
    """Probabilistic weight fixing of a task's network."""

    def __init__(self, task: Task) -> None:
        assert isinstance(task.config.method, PwfnConfig)
        self.config = task.config.method
        super().__init__(task, self.config.fractions)
        self.posterior = Posterior(task.network, self.config)
        holds_means = self.config.codebook == "free" and self.config.fixed_weights == "hold"
        self.lattice = self.posterior.mu.clone() if holds_means else None
        """With `codebook: free` and `fixed_weights: hold`: mu, with each fixed weight at the sum of powers of two that
        was chosen for it, although its value has moved from there to a mean. Float32 `(N,)`; else None."""
        self.radii = np.linspace(self.config.start_sigma, self.config.end_sigma, len(self.fractions)).tolist()

    def train(self, index: int) -> float | None:
        """Train mu, sigma and the other parameters under noise, then give the network its mean weights."""
        training, posterior = self.task.config.training, self.posterior
        if index == 0 and self.config.prior and self.config.sigma_init == "fisher":
            posterior.start_from_fisher_(self.task.fisher(self.config.fisher_images))
        generator = self.task.common_generator("noise", index)
        losses: list[float] = []
        for run in self._runs(index):
            descent = Descent(
                posterior.values,
                posterior.gradient,
                training,
                num_steps=len(run.labels) * run.num_steps,
                replicas=self.task.replicas,
                held=posterior.held(mu=run.mu, sigma=run.sigma),
            )
            learner = PosteriorLearner(posterior, descent, generator)
            losses += self.task.train_epochs(
                learner, run.labels, num_steps=run.num_steps, batch_size=training.batch_size
            )
        posterior.show_mean_()
        return float(np.mean(losses)) if losses else None

    def _runs(self, index: int) -> list[Run]:
        """List what round `index` trains, one run after the other."""
        config, training = self.config, self.task.config.training
        steps = self.task.num_steps(training)
        runs = []
        if index == 0 and config.noise_epochs > 0:
            _, num_steps = epochs_and_steps(training, 1, steps)  # of a whole epoch, not of the first round's share
            labels = [f"noise epoch {epoch + 1}" for epoch in range(config.noise_epochs)]
            runs.append(Run(labels, num_steps, mu=not config.fixed_sigma_first))
        num_epochs, num_steps = epochs_and_steps(training, index, steps)
        labels = [f"round {index + 1} epoch {epoch + 1}" for epoch in range(num_epochs)]
        if config.alternate:
            of_sigma = [f"{label} (sigma)" for label in labels]
            return [*runs, Run(labels, num_steps, sigma=False), Run(of_sigma, num_steps, mu=False)]
        return [*runs, Run(labels, num_steps)]

    def fix(self, index: int) -> Fixing:
        """Fix the round's share of all weights to shared values."""
        config, posterior = self.config, self.posterior
        numbers = quantiles_of_free(posterior)
        clustering = self._cluster(index)
        if posterior.living is None:
            clustering.apply_(posterior.mu, posterior.sigma, config.sigma_join)
        else:
            posterior.living.fix_(posterior.mu, posterior.sigma, clustering.codebook.values, self.radii[index])
            clustering.apply_(posterior.mu.clone(), posterior.sigma, config.sigma_join)  # changes the sigmas only
        assigned = clustering.cluster_of_weight >= 0
        keeps_earlier = config.recluster == "free" and config.codebook != "kmeans"  # which finds all values anew
        posterior.fixed.copy_(posterior.fixed | assigned if keeps_earlier else assigned)
        posterior.show_mean_()
        if config.codebook != "kmeans":
            numbers |= {"radius_start": self.radii[index], "radius_end": clustering.radius_end}
        is_as_clustered = posterior.living is None and index < len(self.fractions) - 1
        return Fixing(
            num_fixed=int(posterior.fixed.sum()),
            codebook=clustering.codebook if is_as_clustered else Codebook.of(posterior.sample[posterior.fixed]),
            numbers=numbers,
        )

    def _cluster(self, index: int) -> ClusterRound:
        """Choose the values of the round's share of all weights.

        With `codebook: free`, weights fixed before are clustered at the sums of powers of two that were chosen for
        them, not at the means to which they have moved: there may be no candidate near a mean, and the radius would
        have to grow before one reaches it. Living weights are clustered at their latent weights.
        """
        config, posterior = self.config, self.posterior
        if config.codebook == "kmeans":
            return nearest_round(posterior.mu, posterior.sigma, self._means(), fraction=self.fractions[index])
        mu = posterior.mu if self.lattice is None else torch.where(posterior.fixed, self.lattice, posterior.mu)
        clustering = cluster_round(
            mu,
            posterior.sigma,
            fraction=self.fractions[index],
            radius=self.radii[index],
            radius_growth=config.radius_growth,
            b=config.b,
            zero_rule=config.zero_rule,
            max_order=config.max_order,
            fixed=posterior.fixed,
            recluster=config.recluster,
            growth=config.growth,
        )
        if config.codebook == "lattice":
            return clustering
        if self.lattice is not None:
            clustering.move_(mu)
            self.lattice.copy_(mu)
        return clustering.at_means(posterior.mu)

    def _means(self) -> DoubleArray:
        """Find the values that minimise the sum over all weights of the squared distance in sigmas, by k-means.

        Returns:
            Float64 `(num_values,)` or fewer, ascending.
        """
        weights = finite_array("the weights", self.posterior.mu)
        sigma = finite_array("the sigmas", self.posterior.sigma.clamp(min=SMALLEST_SIGMA))
        return kmeans_values(weights, self.config.num_values, relative_importance(sigma**-2)).astype(np.float64)

    def settle(self, fixing: Fixing) -> Fixing:
        """Train for `training.settle_epochs` what is not fixed, and the non-zero values unless `codebook: lattice`."""
        training, posterior = self.task.config.training, self.posterior
        if training.settle_epochs == 0:
            return fixing
        held = posterior.held(sigma=False)
        if self.config.codebook != "lattice" and posterior.living is None:
            held[: posterior.num_weights] = posterior.mu == 0
        _, num_steps = epochs_and_steps(training, len(self.fractions), self.task.num_steps(training))
        descent = Descent(
            posterior.values,
            posterior.gradient,
            training,
            num_steps=training.settle_epochs * num_steps,
            replicas=self.task.replicas,
            held=held,
        )
        learner: Learner = SharedValuesLearner(posterior, descent)
        if posterior.living is not None:
            learner = self._living_learner(posterior.living, descent, training.settle_epochs * num_steps)
        labels = [f"settling epoch {epoch + 1}" for epoch in range(training.settle_epochs)]
        list(self.task.train_epochs(learner, labels, num_steps=num_steps, batch_size=training.batch_size))
        posterior.show_mean_()
        return replace(fixing, codebook=Codebook.of(posterior.sample))

    def _living_learner(self, living: LivingWeights, descent: Descent, num_steps: int) -> LivingLearner:
        """Make the learner of living weights; it trains their values too, unless `codebook: lattice`."""
        if self.config.codebook == "lattice":
            return LivingLearner(self.posterior, living, descent, None)
        training = self.task.config.training
        gradient = torch.zeros_like(living.values)
        of_values = Descent(living.values, gradient, training, num_steps=num_steps, replicas=self.task.replicas)
        return LivingLearner(self.posterior, living, descent, of_values)

    def state(self) -> State:
        """Return copies, on the CPU, of the posterior and of `lattice`."""
        lattice = {} if self.lattice is None else {"lattice": self.lattice}
        return {**self.posterior.state(), **copied(lattice)}

    def load_state(self, state: State) -> None:
        """Continue from what `state` returned."""
        self.posterior.load_state(state)
        if self.lattice is not None:
            self.lattice.copy_(state["lattice"])

    def sigmas(self) -> Mapping[str, Tensor] | None:
        """Sigma of each parameter by its name if the ensemble is measured, so that the file allows to repeat that."""
        if self.task.config.evaluation.ensemble_draws == 0:
            return None
        fixable = split_parameters(self.task.network).fixable
        return dict(zip(fixable, self.posterior.weights.views(self.posterior.sigma), strict=True))

    def ensemble_test_top1(self) -> float | None:
        """Measure the mean prediction over posterior draws (PWFN, section 4); None if no draws are configured."""
        evaluation, posterior = self.task.config.evaluation, self.posterior
        if evaluation.ensemble_draws == 0:
            return None
        generator = self.task.generator("ensemble")
        accuracy = evaluate_ensemble(
            posterior.network,
            lambda: posterior.draw_(generator),
            self.task.batches("test", batch_size=evaluation.batch_size),
            draws=evaluation.ensemble_draws,
            replicas=self.task.replicas,
        )
        posterior.show_mean_()
        return accuracy.top1


class PosteriorLearner(Learner):
    """Trains mu, sigma and the other parameters; in each step the network has one sample of the weights."""

    def __init__(self, posterior: Posterior, descent: Descent, generator: torch.Generator) -> None:
        super().__init__(posterior.network, descent, posterior.flats)
        self.posterior = posterior
        self.generator = generator
        self.pulled = posterior.pulled()

    def prepare(self) -> None:
        """Forget the gradients and draw the weights of this step, or take their means if noise is off."""
        super().prepare()
        if self.posterior.config.noise:
            self.posterior.draw_(self.generator)
        else:
            self.posterior.eps.zero_()
            self.posterior.show_mean_()

    def step(self) -> None:
        """Update mu, sigma and the other parameters from the gradients of the backward passes.

        All replicas draw the same noise. So the mean over them of g * eps is the mean of g, times eps, and they need
        not exchange the gradient of sigma.
        """
        posterior, descent = self.posterior, self.descent
        self.collect()
        descent.replicas.mean_together_([posterior.mu_gradient, posterior.rest.gradient])
        if descent.is_fused:
            descent.update(posterior.fill_sigma_gradient_and_square_(self.pulled, descent.free))
        else:
            posterior.fill_sigma_gradient_(self.pulled)
            descent.update()
        posterior.limit_()

    def generators(self) -> list[torch.Generator]:
        """A step draws the noise."""
        return [self.generator]

    def state(self) -> dict[str, Tensor]:
        """Copy where the noise stands, too."""
        return {**super().state(), "generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the same noise."""
        super().load_state(state)
        self.generator.set_state(state["generator"])


def quantiles_of_free(posterior: Posterior) -> dict[str, float]:
    """Quantiles of sigma over the weights that are not fixed yet, by name; empty if all are fixed."""
    free = posterior.sigma[~posterior.fixed]
    if not free.numel():
        return {}
    return dict(zip(SIGMA_QUANTILES, quantiles(free, tuple(SIGMA_QUANTILES.values())).tolist(), strict=True))
