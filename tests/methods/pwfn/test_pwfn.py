"""PWFN's own rules: its schedule, noise, joins and options, and its numbers from round to round."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from method_cases import SHORT, make_task
from pydantic import ValidationError

from pwfn.codebook import value_orders
from pwfn.config import PWFN_FRACTIONS, EvaluationConfig, PwfnConfig, TrainingConfig
from pwfn.methods import run_rounds
from pwfn.methods.kmeans.values import kmeans_values
from pwfn.methods.pwfn.clustering.checks import GROWTHS
from pwfn.methods.pwfn.method import PosteriorLearner, Pwfn
from pwfn.methods.pwfn.posterior import Posterior, laplace_sigma
from pwfn.task import epochs_and_steps

GOLDEN = Path(__file__).with_name("golden_pwfn.json")
THREE_ROUNDS = (0.3, 0.8, 1.0)
NO_TRAINING = SHORT.model_copy(update={"start_epochs": 0})


def run(network="without_batchnorm", training=SHORT, **config):
    task = make_task(network, training=training, method=PwfnConfig(**{"fractions": THREE_ROUNDS, "b": 5, **config}))
    method = Pwfn(task)
    return method, list(run_rounds(method))


def test_golden_rounds(request):
    """The numbers of a toy run; `pytest --rewrite-golden` writes them anew, and the difference is reviewed."""
    _, records = run()
    found = [
        {
            "train_loss": record.train_loss,
            "values": record.fixing.codebook.values.tolist(),
            "counts": record.fixing.codebook.counts.tolist(),
            "radius_end": record.fixing.numbers["radius_end"],
            "sigma_q50": record.fixing.numbers["sigma_q50"],
            "top1": record.after.top1,
        }
        for record in records
    ]
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    for now, golden in zip(found, json.loads(GOLDEN.read_text()), strict=True):
        assert now["values"] == golden["values"]
        assert now["counts"] == pytest.approx(golden["counts"], abs=2)  # another processor adds in another order
        for name in ("train_loss", "radius_end", "sigma_q50"):
            assert now[name] == pytest.approx(golden[name], rel=1e-3)
        assert now["top1"] == pytest.approx(golden["top1"], abs=0.02)


@pytest.mark.parametrize(
    ("training", "index", "expected"),
    [
        (TrainingConfig(), 0, (1, 5)),  # 5 % of 100 batches
        (TrainingConfig(), 1, (3, 100)),
        (TrainingConfig(steps_per_epoch=40), 0, (1, 2)),
        (TrainingConfig(steps_per_epoch=40, rest_epochs=2), 9, (2, 40)),
        (TrainingConfig(start_fraction=0.001), 0, (1, 1)),
        (TrainingConfig(start_epochs=0), 0, (0, 5)),
    ],
)
def test_the_papers_schedule(training, index, expected):
    assert epochs_and_steps(training, index, 100) == expected


def test_every_value_is_a_sum_of_at_most_max_order_powers_and_a_multiple_of_the_smallest():
    method, records = run(max_order=2)
    values = records[-1].fixing.codebook.values
    assert value_orders(values).max() == 2
    assert (values * 2**5 == (values * 2**5).round()).all()
    assert records[-1].metrics.max_order == 2


def test_a_kmeans_codebook_has_the_values_nearest_to_all_weights_in_sigmas():
    method, records = run(training=NO_TRAINING, fractions=(1.0,), codebook="kmeans", num_values=6)
    start = Posterior(make_task("without_batchnorm").network, method.config)
    weights, sigma = start.mu.double(), start.sigma.clamp(min=2.0**-20).double()

    def cost(values):
        nearest = (weights[:, None] - torch.tensor(values).double()).abs().min(dim=1).values
        return float((nearest / sigma).square().sum())

    found = records[-1].fixing.codebook.values
    assert len(found) == records[-1].metrics.unique_values == 6
    assert cost(found) < 1.2 * cost(kmeans_values(start.mu.numpy(), 6, (sigma**-2).float().numpy()))
    assert cost(found) < cost(kmeans_values(start.mu.numpy(), 6))
    assert "radius_end" not in records[-1].fixing.numbers


def test_a_kmeans_codebook_fixes_the_nearest_weights_first():
    method, _ = run(training=NO_TRAINING, fractions=(0.4, 1.0), codebook="kmeans", num_values=6)
    again = Pwfn(make_task("without_batchnorm", training=NO_TRAINING, method=method.config))
    mu, sigma = again.posterior.mu.clone(), again.posterior.sigma.clamp(min=2.0**-20).clone()
    values = torch.tensor(again.fix(0).codebook.values)
    distance = (mu[:, None] - values).abs().min(dim=1).values / sigma
    assert distance[again.posterior.fixed].max() <= distance[~again.posterior.fixed].min()


@pytest.mark.parametrize("recluster", ["all", "free"])
def test_a_kmeans_codebook_fixes_each_rounds_share_and_counts_it(recluster):
    fractions = (0.3, 0.6, 1.0)
    method, records = run(codebook="kmeans", num_values=16, recluster=recluster, fractions=fractions)
    for record, fraction in zip(records, fractions, strict=True):
        expected = pytest.approx(fraction * method.posterior.num_weights, abs=1)
        assert record.fixing.num_fixed == record.fixing.codebook.counts.sum() == expected


def test_a_wider_radius_gives_fewer_values():
    counts = [run(b=8, start_sigma=k, end_sigma=k)[1][-1].metrics.unique_values for k in (0.5, 8.0)]
    assert counts[1] < counts[0]


def test_noise_is_drawn_only_when_asked_for():
    quiet, loud = (run(noise=noise)[0] for noise in (False, True))
    assert not torch.equal(quiet.posterior.mu, loud.posterior.mu)
    for method, is_loud in ((quiet, False), (loud, True)):
        PosteriorLearner(method.posterior, None, torch.Generator()).prepare()
        assert bool(method.posterior.eps.any()) == is_loud
        assert torch.equal(method.posterior.sample, method.posterior.mu) != is_loud


def test_sigma_join_std_mu_gives_the_spread_of_each_group():
    method, records = run(fractions=(1.0,), sigma_join="std_mu", start_sigma=2.0, end_sigma=2.0)
    groups = {value: method.posterior.sigma[method.posterior.mu == value] for value in method.posterior.mu.tolist()}
    assert max(len(sigma) for sigma in groups.values()) > 1
    assert all(sigma.isfinite().all() for sigma in groups.values())
    largest = max(groups.values(), key=len)
    assert largest.max() > 0


@pytest.mark.parametrize("join", ["std_mu", "allow_retraining"])
def test_only_allow_retraining_trains_the_sigma_of_fixed_weights(join):
    task = make_task("without_batchnorm", method=PwfnConfig(fractions=THREE_ROUNDS, b=5, sigma_join=join))
    method = Pwfn(task)
    method.train(0)
    method.fix(0)
    fixed = method.posterior.fixed.clone()
    sigma = method.posterior.sigma[fixed].clone()
    method.train(1)
    assert torch.equal(method.posterior.sigma[fixed], sigma) == (join == "std_mu")


def test_recluster_free_keeps_what_was_fixed_and_all_may_change_it():
    moved = {}
    for recluster in ("free", "all"):
        task = make_task("without_batchnorm", method=PwfnConfig(fractions=THREE_ROUNDS, b=5, recluster=recluster))
        method = Pwfn(task)
        method.train(0)
        method.fix(0)
        fixed = method.posterior.fixed.clone()
        values = method.posterior.mu[fixed].clone()
        method.train(1)
        method.fix(1)
        assert method.posterior.fixed.sum() > fixed.sum()
        moved[recluster] = int((method.posterior.mu[fixed] != values).sum())
        if recluster == "free":
            assert method.posterior.fixed[fixed].all()
    assert moved["free"] == 0


def test_sigma_starts_from_the_fisher_information_where_asked_for():
    starts = {}
    for name, config in {"paper": {}, "fisher": {"sigma_init": "fisher"}}.items():
        task = make_task("without_batchnorm", method=PwfnConfig(**config), training=NO_TRAINING)
        method = Pwfn(task)
        fisher = task.fisher(500)
        method.train(0)
        starts[name] = method.posterior.sigma
    first = method.posterior.weights.sizes[0]
    assert torch.equal(starts["fisher"][:first], laplace_sigma(fisher[:first], PwfnConfig()))
    assert not torch.equal(starts["fisher"], starts["paper"])


def test_a_constant_sigma_is_constant_whatever_else_is_asked_for():
    task = make_task("without_batchnorm", method=PwfnConfig(prior=False, sigma_init="fisher"), training=NO_TRAINING)
    method = Pwfn(task)
    method.train(0)
    assert (method.posterior.sigma == 1e-4).all()


def test_the_ways_of_growth_are_those_of_the_clustering():
    assert get_args(PwfnConfig.model_fields["growth"].annotation) == GROWTHS


def test_growth_reaches_the_clustering():
    radii = {
        growth: run(b=7, growth=growth, max_order=2)[1][-1].fixing.numbers["radius_end"]
        for growth in ("alternate", "nearest")
    }
    assert radii["nearest"] == 1 < radii["alternate"]


def test_a_free_codebook_holds_the_mean_of_each_values_weights_and_zero():
    task = make_task("without_batchnorm", method=PwfnConfig(fractions=THREE_ROUNDS, b=5, codebook="free"))
    method = Pwfn(task)
    for index in range(len(THREE_ROUNDS)):
        method.train(index)
        before = method.posterior.mu.clone()
        codebook = method.fix(index).codebook
    groups = {value: before[method.posterior.mu == value].mean().item() for value in codebook.values}
    assert groups.pop(0) != 0
    assert len(groups) > 5
    assert list(groups) == pytest.approx(list(groups.values()), rel=1e-5)
    assert value_orders(codebook.values).max() > 4


@pytest.mark.parametrize("growth", ["alternate", "nearest"])
@pytest.mark.parametrize("recluster", ["all", "free"])
def test_a_free_codebook_has_about_as_many_values_as_the_lattice(growth, recluster):
    """Round after round the weights of a mean are clustered where they were chosen to be, so they stay together."""
    lattice, free = (
        run(codebook=codebook, growth=growth, recluster=recluster, fractions=PWFN_FRACTIONS)[1][
            -1
        ].metrics.unique_values
        for codebook in ("lattice", "free")
    )
    assert 0.8 * lattice < free < 1.2 * lattice


def test_alternate_trains_mu_first_and_sigma_afterwards():
    task = make_task("without_batchnorm", method=PwfnConfig(fractions=THREE_ROUNDS, alternate=True, prior=False))
    method = Pwfn(task)
    steps = []
    original = task.data.train_batches

    def counted(**arguments):
        for batch in original(**arguments):
            steps.append((method.posterior.mu.clone(), method.posterior.sigma.clone()))
            yield batch

    task.data.train_batches = counted
    method.train(1)
    half = len(steps) // 2
    assert len(steps) == 2 * task.num_steps(task.config.training)
    assert all(torch.equal(sigma, steps[0][1]) for _, sigma in steps[: half + 1])
    assert all(torch.equal(mu, steps[half][0]) for mu, _ in steps[half:])
    assert not torch.equal(steps[half][0], steps[0][0])
    assert not torch.equal(method.posterior.sigma, steps[half][1])


def test_the_posterior_ensemble_is_measured_where_asked_for():
    task = make_task("without_batchnorm", method=PwfnConfig(fractions=(1.0,), b=5))
    ask = task.config.model_copy(update={"evaluation": EvaluationConfig(ensemble_draws=3)})
    asked = type(task)(task.network, task.data, ask, task.device, task.replicas)
    last = list(run_rounds(Pwfn(asked)))[-1]
    assert last.ensemble_test_top1 is not None
    assert abs(last.ensemble_test_top1 - asked.measure("test").top1) < 0.2
    assert (
        list(run_rounds(Pwfn(make_task("without_batchnorm", method=PwfnConfig(fractions=(1.0,))))))[
            -1
        ].ensemble_test_top1
        is None
    )


def test_sigma_quantiles_are_those_of_the_free_weights():
    method, records = run()
    for record in records:
        quantiles = [number for name, number in record.fixing.numbers.items() if name.startswith("sigma_q")]
        assert quantiles == sorted(quantiles)
        assert len(quantiles) == 5


@pytest.mark.parametrize("regularization", ["linear", "exponential", "linear_on_grad"])
def test_the_regulariser_holds_sigma_up(regularization):
    """With a strong pull the free sigmas end higher than without."""
    ends = [
        run(fractions=(0.1, 1.0), regularization=regularization, regularization_strength=strength, prior=False)[1][
            -1
        ].fixing.numbers["sigma_q95"]
        for strength in (0.0, 10.0)
    ]
    assert ends[1] > ends[0]


@pytest.mark.parametrize("sigma_first", [False, True])
def test_noise_epochs_come_before_the_first_round_and_sigma_first_leaves_the_network_as_it_is(sigma_first):
    training = TrainingConfig(lr=0.01, batch_size=64, start_epochs=0, steps_per_epoch=3)
    config = PwfnConfig(fractions=THREE_ROUNDS, noise_epochs=2, fixed_sigma_first=sigma_first)
    task = make_task(method=config, training=training)
    before = {name: tensor.clone() for name, tensor in task.network.named_parameters()}
    method = Pwfn(task)
    sigma = method.posterior.sigma.clone()
    labels = []
    train_epoch = type(task).train_epoch

    def noted(self, learner, *, num_steps, label, **arguments):
        labels.append((label, num_steps))
        return train_epoch(self, learner, num_steps=num_steps, label=label, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(task), "train_epoch", noted)
        loss = method.train(0)
    assert labels == [("noise epoch 1", 3), ("noise epoch 2", 3)]
    assert loss is not None
    assert not torch.equal(method.posterior.sigma, sigma)
    stays = {name: torch.equal(tensor, before[name]) for name, tensor in task.network.named_parameters()}
    assert set(stays.values()) == {sigma_first}


def test_noise_epochs_are_trained_once_and_the_rounds_go_on_from_them():
    training = TrainingConfig(lr=0.01, batch_size=64, start_epochs=0, rest_epochs=0)
    _, plain = run(training=training)
    _, records = run(training=training, noise_epochs=1, fixed_sigma_first=True)
    assert [record.train_loss is not None for record in records] == [True, False, False]
    assert records[0].before == plain[0].before  # of the same weights
    assert records[0].fixing.numbers["sigma_q50"] != plain[0].fixing.numbers["sigma_q50"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fixed_sigma_first": True}, "fixed_sigma_first=true has no effect without noise_epochs"),
        ({"noise_epochs": 2, "noise": False}, "noise_epochs=2 train under noise, but noise is false"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        PwfnConfig(**fields)
