"""WFN's own rules: its distances, its penalty, its first round, its norm layers, its numbers from round to round."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from method_cases import make_task
from slow_wfn import slow_expected_distances
from torch.nn.functional import cross_entropy

from pwfn.codebook import Codebook
from pwfn.config import WFN_FRACTIONS, TrainingConfig, WfnConfig
from pwfn.descent import Descent
from pwfn.errors import DivergedWeightsError
from pwfn.export import encode_network, load_state
from pwfn.methods import run_rounds
from pwfn.methods.wfn import Pull
from pwfn.methods.wfn.method import PulledLearner, Wfn
from pwfn.parameters import FlatParameters, split_parameters
from pwfn.replicas import Replicas

GOLDEN = Path(__file__).with_name("golden_wfn.json")
THREE_ROUNDS = (0.3, 0.8, 1.0)
PAPER = TrainingConfig(
    optimizer="adam", lr=0.001, weight_decay=0.0, clip_norm=0.5, batch_size=64, start_epochs=0, rest_epochs=1
)


def make(network="without_batchnorm", training=PAPER, **config):
    return Wfn(make_task(network, training=training, method=WfnConfig(**{"fractions": THREE_ROUNDS, **config})))


def after_first_fixing(**config):
    method = make(**config)
    method.train(0)
    method.fix(0)
    return method


def test_golden_rounds(request):
    """The numbers of a toy run; `pytest --rewrite-golden` writes them anew, and the difference is reviewed."""
    found = [
        {
            "train_loss": record.train_loss,
            "values": record.fixing.codebook.values.tolist(),
            "counts": record.fixing.codebook.counts.tolist(),
            "top1": record.after.top1,
        }
        for record in run_rounds(make(delta=0.05, training=PAPER.model_copy(update={"start_epochs": 1})))
    ]
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    for now, golden in zip(found, json.loads(GOLDEN.read_text()), strict=True):
        assert now["values"] == golden["values"]
        assert now["counts"] == pytest.approx(golden["counts"], abs=2)  # another processor adds in another order
        assert now["train_loss"] == pytest.approx(golden["train_loss"], rel=1e-3)
        assert now["top1"] == pytest.approx(golden["top1"], abs=0.02)


def test_the_allowed_distance_shrinks_to_delta():
    method = make(fractions=WFN_FRACTIONS, delta=0.0075)
    found = [method.allowed_distance(index) for index in range(10)]
    assert found == pytest.approx([0.0075 * n for n in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)])


def test_a_smaller_delta_moves_weights_less_and_keeps_more_values():
    moved, counts = [], []
    for delta in (0.01, 0.2):
        method = make(delta=delta, fractions=(1.0,))
        before = method.weights.clone()
        counts.append(len(method.fix(0).codebook.values))
        moved.append(float((method.weights - before).abs().mean()))
    assert moved[0] < moved[1]
    assert counts[0] > counts[1]


@pytest.mark.parametrize("start_epochs", [0, 2])
def test_the_first_round_trains_as_long_as_is_asked_and_feels_no_pull(start_epochs):
    training = PAPER.model_copy(update={"start_epochs": start_epochs, "start_fraction": 1.0})
    pulled, free = (make(training=training, regularization_ratio=ratio) for ratio in (0.9, 0.0))
    losses = [method.train(0) for method in (pulled, free)]
    assert losses[0] == losses[1]
    assert (losses[0] is None) == (start_epochs == 0)
    assert torch.equal(pulled.weights, free.weights)


def test_the_penalty_and_its_gradient_are_those_of_the_definition():
    """alpha L with alpha = detach(0.4 CE / L) and L over all centres, by autograd, beside ours by hand."""
    method = after_first_fixing(delta=0.05)
    task, free = method.task, ~method.fixed
    centres = Codebook.of(method.weights[method.fixed]).values
    images, labels = next(iter(task.batches("train", batch_size=32)))

    learner = PulledLearner(task.network, None, method.flat, free, method._pull(), 0.4)
    learner.prepare()
    loss = cross_entropy(task.network(images), labels)
    penalty = learner.penalty(loss)
    (loss + penalty).backward()
    learner.descent = SimpleNamespace(step=lambda: None)
    learner.step()
    ours = method.gradient.clone()

    method.flat.forget_()
    loss = cross_entropy(task.network(images), labels)
    loss.backward()
    method.flat.collect_()
    weights = method.weights.double().clone().requires_grad_()
    full = slow_expected_distances(weights[free], torch.from_numpy(centres).double(), 0.05, 2.0**-7).mean()
    (0.4 * loss.detach() / full.detach() * full).backward()
    expected = method.gradient.double().clone()
    expected[: len(weights)] += weights.grad

    assert penalty.item() == pytest.approx(0.4 * loss.item(), rel=1e-6)
    assert not penalty.requires_grad
    assert (ours - expected).norm() <= 1e-3 * expected.norm()
    assert weights.grad.norm() > 1e-2 * expected.norm()  # the pull is no small part of it
    held = torch.nonzero(method.fixed).squeeze(1)
    torch.testing.assert_close(ours[held], method.gradient[held], rtol=1e-5, atol=1e-7)  # no pull on fixed weights


def test_the_pull_brings_free_weights_nearer_to_the_values():
    ends = []
    for ratio in (0.0, 5.0):
        method = after_first_fixing(delta=0.05, regularization_ratio=ratio)
        centres = torch.from_numpy(Codebook.of(method.weights[method.fixed]).values).double()
        method.train(1)
        free = method.weights[~method.fixed].double()
        ends.append(float(slow_expected_distances(free, centres, 0.05, 2.0**-7).mean()))
    assert ends[1] < 0.95 * ends[0]


def test_where_all_free_weights_are_zero_there_is_no_pull():
    network = torch.nn.Linear(3, 1)
    flat = FlatParameters(network.parameters())
    flat.values.zero_()
    descent = Descent(flat.values, flat.gradient, PAPER, num_steps=1, replicas=Replicas())
    pull = Pull(np.array([0.0]), temperature=0.05, zero_distance=0.01, largest=0.0)
    learner = PulledLearner(network, descent, flat, torch.tensor([True, False, True, True]), pull, 0.4)
    learner.prepare()
    assert learner.penalty(torch.tensor(2.0)) == 0
    learner.step()
    assert not flat.values.any()


def test_fixed_weights_keep_their_value_in_later_rounds():
    method = after_first_fixing()
    fixed, values = method.fixed.clone(), method.weights[method.fixed].clone()
    for index in (1, 2):
        method.train(index)
        method.fix(index)
        assert method.fixed[fixed].all()
        assert torch.equal(method.weights[fixed], values)


@pytest.mark.parametrize("network", ["convolutional", "attention"])
def test_norm_layers_are_fixed_where_asked_for(network, tmp_path):
    method = make(network, include_norm=True)
    task = method.task
    last = list(run_rounds(method))[-1]
    fixed = task.parameter_sets.fixable
    added = fixed.keys() - split_parameters(task.network).fixable.keys()
    assert added == ({"1.weight", "1.bias", "6.weight", "6.bias"} if network == "convolutional" else
                     {"norm.weight", "norm.bias"})  # fmt: skip
    assert last.fixing.num_fixed == sum(parameter.numel() for parameter in fixed.values())
    num_parameters = sum(parameter.numel() for parameter in task.network.parameters())
    num_others = 0 if network == "convolutional" else 8 * 16  # the positional embedding
    assert task.parameter_sets.coverage == 1 - num_others / num_parameters
    path = tmp_path / "network.safetensors"
    path.write_bytes(encode_network(task.network, {}, include_norm=task.config.include_norm))
    state = load_state(path)
    assert len({value for name in fixed for value in state[name].flatten().tolist()}) == last.metrics.unique_values


def test_without_being_asked_for_norm_layers_only_train():
    method = make("convolutional")
    before = method.task.network[1].weight.detach().clone()
    records = list(run_rounds(method))
    after = method.task.network[1].weight.detach()
    assert (after != before).all()
    assert not torch.isin(after, torch.from_numpy(records[-1].fixing.codebook.values)).any()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1e-4])
def test_a_network_of_one_value_keeps_one_value(weight):
    method = make(fractions=(1.0,))
    method.weights.fill_(weight)
    (record,) = run_rounds(method)
    assert record.fixing.codebook.values.tolist() == [weight if weight == 0.25 else 0.0]
    assert record.metrics.entropy_bits == 0


def test_weights_that_are_no_numbers_end_the_trial():
    method = make()
    method.weights[3] = torch.nan
    with pytest.raises(DivergedWeightsError, match="must be finite"):
        method.fix(0)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("delta", 0.0005, "greater than or equal to 0.001"),
        ("delta", 1.0, "less than 1"),
        ("zero_distance", 0.0, "greater than or equal to"),
        ("temperature", 0.0001, "greater than or equal to 0.001"),
        ("regularization_ratio", -0.1, "greater than or equal to 0"),
        ("fractions", (0.5, 0.5, 1.0), "must increase and end at 1.0"),
    ],
)
def test_impossible_settings_are_refused(field, value, allowed):
    with pytest.raises(ValueError, match=allowed):
        WfnConfig(**{field: value})
