"""Straight-through training: its step against the definition, its stages, its input."""

import dataclasses
import logging

import pytest
import torch
from method_cases import SHORT, make_task
from pydantic import ValidationError

from pwfn.codebook import value_orders
from pwfn.config import QatConfig, TrainingConfig
from pwfn.errors import DivergedWeightsError, UserError
from pwfn.methods import run_rounds
from pwfn.methods.qat.learner import StraightThroughLearner
from pwfn.methods.qat.method import Qat
from pwfn.methods.qat.weights import SharedWeights
from pwfn.replicas import Replicas
from pwfn.seeds import derive_seed
from pwfn.training import train_epoch

FINE = TrainingConfig(
    optimizer="sgd", lr=0.05, momentum=0.0, weight_decay=0.0, clip_norm=None, batch_size=64, start_fraction=1.0
)


def run(training=SHORT, network="convolutional", **config):
    task = make_task(network, training=training, method=QatConfig(**{"weighting": "plain", **config}))
    method = Qat(task)
    return method, list(run_rounds(method))


def test_a_step_is_that_of_the_definition():
    """The gradient of what is seen moves the latent weight; the mean over a value's weights moves the value."""
    task = make_task("without_batchnorm", method=QatConfig(num_values=5, weighting="plain"))
    weights = SharedWeights(task.parameter_sets, task.config.method)
    weights.start_stage_(5, None)
    learner = StraightThroughLearner(
        task.network, weights, weights.descent(FINE, num_steps=9, replicas=Replicas()), num_steps=9
    )
    latent, values = weights.latent.clone(), weights.codebook.clone()
    nearest = (latent[:, None] - values).abs().argmin(dim=1)
    [(images, labels)] = task.data.train_batches(batch_size=64, seed=derive_seed(0), num_steps=1)

    train_epoch(learner, [(images, labels)], precision="float32", replicas=Replicas(), label="one")
    seen = torch.cat([p.detach().flatten() for p in task.parameter_sets.fixable.values()])
    assert torch.equal(seen, values[nearest])
    task.network.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(task.network(images), labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in task.parameter_sets.fixable.values()])
    torch.testing.assert_close(weights.latent, latent - 0.05 * gradient)
    means = torch.stack([gradient[nearest == index].mean() for index in range(5)])
    torch.testing.assert_close(weights.codebook, values - 0.3 * 0.05 * means)


def test_each_stage_ends_in_a_whole_network_and_goes_on_from_its_latent_weights():
    method, records = run(stages=(9, 4, 2), stage_rounds=(2, 1, 2))
    assert [record.stage for record in records] == [0, 0, 1, 2, 2]
    assert [record.is_whole for record in records] == [False, True, True, False, True]
    assert [record.metrics.unique_values for record in records] == [9, 9, 4, 2, 2]
    assert [record.recalibrated_bn for record in records] == [record.is_whole for record in records]
    assert [record.test_before is not None for record in records] == [record.is_whole for record in records]
    assert len(method.weights.latent.unique()) > 1000


def test_a_stage_is_one_schedule_whatever_its_rounds():
    """Three rounds of one epoch take the learning rates of one round of three epochs."""
    rates = []
    for rounds, epochs in ((3, 1), (1, 3)):
        training = FINE.model_copy(update={"lr_schedule": "cosine", "start_epochs": epochs, "rest_epochs": epochs})
        task = make_task(training=training, method=QatConfig(num_values=5, stage_rounds=(rounds,), weighting="plain"))
        method, seen = Qat(task), []
        for index in range(rounds):
            method.train(index)
            assert method.descent is not None
            seen.append([group["lr"] for group in method.descent.optimizer.param_groups])
        rates.append(seen[-1])
        assert seen[-1] == pytest.approx([0, 0], abs=1e-12)
    assert method.place(0).num_steps == 12


@pytest.mark.parametrize(
    ("ratio", "expected"), [({}, (1.0, 0.7, 0.7)), ({"later_lr_ratio": (2.0, 5.0)}, (1.0, 2.0, 5.0))]
)
def test_each_stage_has_its_learning_rate_and_values_have_their_own(ratio, expected):
    method = QatConfig(stages=(5, 3, 2), stage_rounds=(1,), weighting="plain", **ratio)
    training = Qat(make_task(training=FINE, method=method))
    for stage, factor in enumerate(expected):
        training.train(stage)
        assert training.descent is not None
        rates = [group["lr"] for group in training.descent.optimizer.param_groups]
        assert rates == pytest.approx([0.05 * factor, 0.05 * factor * 0.3])


def test_a_zero_stays_zero_and_has_weights():
    _, records = run(training=SHORT.model_copy(update={"lr": 0.05}), stages=(7, 3), zero=True)
    for record in records:
        assert 0 in record.fixing.codebook.values
        assert record.metrics.sparsity > 0.01


def test_powers_of_two_stay_sums_of_few_of_them():
    _, records = run(num_values=9, values="powers_of_two", b=6, max_order=2, zero=True)
    for record in records:
        values = record.fixing.codebook.values
        assert value_orders(values).max() <= 2
        assert (values * 2**6 == (values * 2**6).round()).all()


@pytest.mark.parametrize("weighting", ["plain", "fisher"])
def test_more_strength_means_fewer_bits(weighting):
    bits = [
        run(num_values=9, rate_strength=strength, weighting=weighting, fisher_images=64)[1][-1].metrics.entropy_bits
        for strength in (0.0, 0.03, 0.3)
    ]
    assert bits[0] > bits[1] > bits[2]


def test_a_strength_that_empties_the_codebook_is_named_and_still_a_point(caplog):
    with caplog.at_level(logging.WARNING):
        _, records = run(num_values=8, rate_strength=1e4)
    assert records[-1].is_whole
    assert records[-1].metrics.unique_values == 1
    [message] = caplog.messages
    assert message == (
        "qat: stage 1 of 1 was to have 8 values and ends with 1: method.rate_strength=10000 leaves the others empty; "
        "use a smaller one to keep them"
    )


def test_a_gradual_start_goes_from_the_latent_weights_to_their_values():
    task = make_task(method=QatConfig(num_values=3, weighting="plain"))
    weights = SharedWeights(task.parameter_sets, task.config.method)
    weights.start_stage_(3, None)
    descent = weights.descent(FINE, num_steps=9, replicas=Replicas())
    learner = StraightThroughLearner(task.network, weights, descent, num_steps=9, gradual_steps=4)
    distances = []
    for _ in range(6):
        learner.prepare()
        distances.append(float((weights.shown - weights.latent).abs().mean()))
        learner.step()
    whole = distances[-1]
    assert distances == pytest.approx([0, whole / 4, whole / 2, 3 * whole / 4, whole, whole], rel=1e-4)


def test_dampening_moves_a_latent_weight_towards_the_value_that_was_seen():
    """By lr * dampening * (share of the steps that are done) / root mean square, beside the step without it."""

    def latent_after_a_step(dampening):
        task = make_task("without_batchnorm", method=QatConfig(num_values=5, weighting="plain", dampening=dampening))
        weights = SharedWeights(task.parameter_sets, task.config.method)
        weights.start_stage_(5, None)
        descent = weights.descent(FINE, num_steps=4, replicas=Replicas())
        learner = StraightThroughLearner(task.network, weights, descent, num_steps=4)
        rms = weights.latent.square().mean().sqrt()
        batches = task.data.train_batches(batch_size=64, seed=derive_seed(0), num_steps=1)
        train_epoch(learner, batches, precision="float32", replicas=Replicas(), label="one")
        return weights.latent, weights.shown, rms

    plain, seen, rms = latent_after_a_step(0.0)
    dampened, _, _ = latent_after_a_step(0.6)
    torch.testing.assert_close(dampened, plain + 0.05 * 0.6 * (1 / 4) / rms * (seen - plain))
    too_much, _, _ = latent_after_a_step(1e6)
    torch.testing.assert_close(too_much, seen)


@pytest.mark.parametrize("stage_start", ["path_following", "gptq"])
def test_a_stage_that_starts_layer_by_layer_starts_closer_to_the_network_before_it(stage_start):
    """Outputs before the first step: with the same values, closer to those of the float network than the nearest."""

    def error(stage_start):
        config = QatConfig(num_values=4, weighting="plain", stage_start=stage_start, calibration_images=256)
        task = make_task(method=config)
        [(images, _)] = task.data.batches("train", batch_size=256, max_images=256)
        with torch.no_grad():
            wanted = task.network.eval()(images)
            method = Qat(task)
            method._start_stage_(4)
            method.weights.assign_()
            found = task.network.eval()(images)
        return float((found - wanted).square().mean()), method.weights

    nearest, by_latent = error("latent")
    followed, by_path = error(stage_start)
    assert followed < 0.7 * nearest
    assert torch.equal(by_path.codebook, by_latent.codebook)
    assert torch.equal(by_path.latent, by_path.shown)
    assert by_path.counts.sum() == by_path.num_weights
    assert by_path.latent.unique().tolist() == by_path.codebook.tolist()


def test_more_values_than_weights_are_refused():
    task = make_task("without_batchnorm", method=QatConfig(num_values=256))
    tiny = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    with pytest.raises(UserError, match=r"method\.num_values: 256 values are asked for, but the network has only 15"):
        SharedWeights(type(task.parameter_sets)(dict(tiny.named_parameters()), {}), task.config.method)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stages": (8, 8)}, r"stages must fall, each with fewer values than the last, but got \[8, 8\]"),
        ({"stages": (4, 8)}, r"stages must fall"),
        ({"stages": (8, 4), "num_values": 8}, r"num_values=8 and stages=\[8, 4\] both say how many values there are"),
        ({"stages": (8, 4), "stage_rounds": (1, 2, 3)}, r"one for each of the 2 stages, but got \[1, 2, 3\]"),
        ({"stages": (8, 4), "later_lr_ratio": (2, 3)}, r"the 1 stages after the first, but got \[2.0, 3.0\]"),
        ({"stages": (8, 1), "zero": True}, "zero is true and the last stage has one value: all weights would be zero"),
        ({"num_values": 257}, "less than or equal to 256"),
        ({"rate_strength": -1.0}, "greater than or equal to 0"),
        ({"dampening": -0.5}, "greater than or equal to 0"),
        ({"stage_start": "gpfq"}, "Input should be 'latent', 'path_following' or 'gptq'"),
    ],
)
def test_what_makes_no_sense_is_refused(config, message):
    with pytest.raises(ValidationError, match=message):
        QatConfig(**config)


def test_weights_that_are_not_finite_are_named():
    task = make_task(method=QatConfig(num_values=4))
    next(iter(task.parameter_sets.fixable.values())).data[0] = float("nan")
    with pytest.raises(DivergedWeightsError, match="the weights hold NaN or infinity"):
        Qat(task).train(0)


def test_bfloat16_and_micro_batches_train():
    task = make_task(training=SHORT.model_copy(update={"precision": "bfloat16"}), method=QatConfig(num_values=4))
    whole = list(run_rounds(Qat(task)))
    halves = dataclasses.replace(make_task(training=SHORT, method=QatConfig(num_values=4)), micro_batches=2)
    parts = list(run_rounds(Qat(halves)))
    alone = list(run_rounds(Qat(make_task(training=SHORT, method=QatConfig(num_values=4)))))
    assert whole[-1].train_loss == pytest.approx(alone[-1].train_loss, rel=0.1)
    assert parts[-1].train_loss == pytest.approx(alone[-1].train_loss, rel=0.1)
    assert parts[-1].train_loss != alone[-1].train_loss  # BatchNorm saw the halves
