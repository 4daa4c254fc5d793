"""PWFN: training under learned weight noise alternates with fixing ever more weights (PWFN, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pwfn.clustering import ClusterRound, cluster_round
from pwfn.config import TrainingConfig
from pwfn.descent import Descent
from pwfn.methods.records import RoundRecord, State
from pwfn.metrics import Codebook, measure_codebook
from pwfn.posterior import Posterior, quantile
from pwfn.task import Task
from pwfn.training import Stopwatch, count_hits

SIGMA_QUANTILES = {"sigma_q05": 0.05, "sigma_q25": 0.25, "sigma_q50": 0.5, "sigma_q75": 0.75, "sigma_q95": 0.95}


def pwfn(task: Task, state: State | None = None) -> Iterator[RoundRecord]:
    """Run PWFN's rounds; see `pwfn.methods.records.Method`."""
    config = task.config.method
    posterior = Posterior(task.network, config)
    first_round = 0
    if state is not None:
        posterior.load_state(state)
        first_round = int(state["round"]) + 1
    radii = np.linspace(config.start_sigma, config.end_sigma, len(config.fractions))

    for index in range(first_round, len(config.fractions)):
        is_last = index == len(config.fractions) - 1
        watch = Stopwatch(task.device)
        train_loss = train_round(task, posterior, index)
        train_seconds = watch.lap()
        before = task.measure("validation")
        test_before = task.measure("test") if is_last else None
        eval_seconds = watch.lap()
        sigma_quantiles = quantiles_of_free(posterior)
        clustering = fix(posterior, config.fractions[index], float(radii[index]))
        recalibrated = is_last and task.recalibrate()
        fix_seconds = watch.lap()
        after = task.measure("validation")
        codebook = Codebook.of(posterior.mu) if is_last else clustering.codebook
        yield RoundRecord(
            round=index,
            num_rounds=len(config.fractions),
            fraction=config.fractions[index],
            num_fixed=int(posterior.fixed.sum()),
            before=before,
            after=after,
            metrics=measure_codebook(codebook),
            codebook=codebook,
            train_loss=train_loss,
            train_seconds=train_seconds,
            fix_seconds=fix_seconds,
            eval_seconds=eval_seconds + watch.lap(),
            state=lambda index=index: {"round": torch.tensor(index), **posterior.state()},
            radius_start=float(radii[index]),
            radius_end=clustering.radius_end,
            sigma_quantiles=sigma_quantiles,
            test_before=test_before,
            recalibrated_bn=recalibrated,
            ensemble_test_top1=measure_ensemble(task, posterior) if is_last else None,
        )


class PosteriorLearner:
    """Trains mu and sigma on the cross-entropy of one sampled network per step."""

    def __init__(self, posterior: Posterior, descent: Descent, generator: torch.Generator) -> None:
        self.network = posterior.network
        self.posterior = posterior
        self.descent = descent
        self.generator = generator

    def prepare(self) -> None:
        """Draw the weights of this step."""
        if self.posterior.config.noise:
            self.posterior.draw_(self.generator)
        else:
            self.posterior.show_mean_()
        self.posterior.gradient.zero_()

    def penalty(self, loss: Tensor) -> Tensor:
        """Add nothing: the regulariser acts on the gradient of sigma alone."""
        return torch.zeros_like(loss)

    def step(self) -> None:
        """Update mu, sigma and the other parameters."""
        self.posterior.fill_sigma_gradient_()
        self.descent.step()


def train_round(task: Task, posterior: Posterior, index: int) -> float | None:
    """Train before one fixing, leave the mean weights in the network; return the mean loss, None for no step."""
    training = task.config.training
    num_epochs, num_steps = epochs_and_steps(training, index, task.num_steps(training))
    generator = task.generator("noise", index)
    # Together, or first everything but sigma and then sigma alone.
    parts = [(True, False), (False, True)] if posterior.config.alternate else [(True, True)]
    losses = []
    for mu, sigma in parts:
        descent = Descent(
            posterior.values,
            posterior.gradient,
            training,
            num_steps=num_epochs * num_steps,
            replicas=task.replicas,
            held=posterior.held(mu=mu, sigma=sigma),
        )
        learner = PosteriorLearner(posterior, descent, generator)
        for epoch in range(num_epochs):
            label = f"round {index + 1} epoch {epoch + 1}" + ("" if mu else " (sigma)")
            losses.append(task.train_epoch(learner, num_steps=num_steps, label=label, batch_size=training.batch_size))
    posterior.show_mean_()
    return float(np.mean(losses)) if losses else None


def epochs_and_steps(training: TrainingConfig, index: int, steps_per_epoch: int) -> tuple[int, int]:
    """Return how many epochs round `index` trains, and the steps of each: the first round sees a share only."""
    if training.steps_per_epoch is not None:
        steps_per_epoch = min(steps_per_epoch, training.steps_per_epoch)
    if index > 0:
        return training.rest_epochs, steps_per_epoch
    return training.start_epochs, max(1, round(training.start_fraction * steps_per_epoch))


def quantiles_of_free(posterior: Posterior) -> dict[str, float]:
    """Quantiles of sigma over the weights that are not fixed yet; empty if there are none."""
    free = posterior.sigma[~posterior.fixed]
    return {name: float(quantile(free, q)) for name, q in SIGMA_QUANTILES.items()} if free.numel() else {}


def fix(posterior: Posterior, fraction: float, radius: float) -> ClusterRound:
    """Assign `fraction` of all weights to the codebook and show the network the result."""
    config = posterior.config
    clustering = cluster_round(
        posterior.mu,
        posterior.sigma,
        fraction=fraction,
        radius=radius,
        radius_growth=config.radius_growth,
        b=config.b,
        zero_rule=config.zero_rule,
        max_order=config.max_order,
        fixed=posterior.fixed,
        recluster=config.recluster,
    )
    clustering.apply_(posterior.mu, posterior.sigma, config.sigma_join)
    assigned = clustering.step_of_weight >= 0
    posterior.fixed.copy_(posterior.fixed | assigned if config.recluster == "free" else assigned)
    posterior.show_mean_()
    return clustering


def measure_ensemble(task: Task, posterior: Posterior) -> float | None:
    """Test accuracy of the mean prediction over posterior draws (the authors' second evaluation); None if unasked."""
    draws = task.config.evaluation.ensemble_draws
    if draws == 0:
        return None
    generator = task.generator("ensemble")
    posterior.network.eval()
    hits = torch.zeros(3, dtype=torch.int64, device=task.device)
    with torch.no_grad():
        for images, labels in task.batches("test", batch_size=task.config.evaluation.batch_size):
            mean = torch.zeros((), device=task.device)
            for _ in range(draws):
                posterior.draw_(generator)
                mean = mean + posterior.network(images).softmax(dim=1)
            hits += count_hits(mean, labels)
    posterior.show_mean_()
    top1, _, num_images = task.replicas.sum_(hits).tolist()
    return top1 / num_images if num_images else None
