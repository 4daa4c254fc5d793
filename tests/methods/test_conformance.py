"""What every method does: one class of tests that each passes."""

import dataclasses
from functools import cache

import pytest
import torch
from method_cases import NETWORKS, SHORT, make_task

from pwfn.codebook import Codebook, measure_codebook
from pwfn.config import GpfqConfig, KmeansConfig, MsqConfig, PwfnConfig, QatConfig, TrainingConfig, WfnConfig
from pwfn.errors import NonFiniteLossError
from pwfn.export import encode_network, load_state
from pwfn.methods import METHODS, run_rounds
from pwfn.parameters import split_parameters


def qat_started_by(algorithm):
    return QatConfig(
        stages=(9, 4),
        stage_rounds=(1, 2),
        fisher_images=32,
        calibration_images=64,
        stage_start=algorithm,
        dampening=0.5,
    )


CONFIGS = {
    "pwfn": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5),
    "pwfn-free": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5, recluster="free"),
    "pwfn-fisher": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5, sigma_init="fisher", fisher_images=32),
    "pwfn-radius-first": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5, growth="radius_first"),
    "pwfn-nearest": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5, growth="nearest"),
    "pwfn-means": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5, codebook="free"),
    "pwfn-nearest-means-free": PwfnConfig(
        fractions=(0.3, 0.8, 1.0), b=5, growth="nearest", codebook="free", recluster="free"
    ),
    "pwfn-kmeans": PwfnConfig(fractions=(0.3, 0.8, 1.0), codebook="kmeans", num_values=7),
    "pwfn-live": PwfnConfig(fractions=(0.3, 0.8, 1.0), b=5, fixed_weights="live", end_sigma=4.0),
    "pwfn-kmeans-live": PwfnConfig(
        fractions=(0.3, 0.8, 1.0), codebook="kmeans", num_values=7, fixed_weights="live", sigma_join="allow_retraining"
    ),
    "wfn": WfnConfig(fractions=(0.3, 0.8, 1.0), delta=0.05),
    "gpfq": GpfqConfig(bits=2, calibration_images=64),
    "msq": MsqConfig(bits=2),
    "kmeans": KmeansConfig(num_values=6),
    "kmeans-path-following": KmeansConfig(num_values=6, assignment="path_following", calibration_images=64),
    "kmeans-gptq": KmeansConfig(num_values=6, assignment="gptq", calibration_images=64),
    "qat": QatConfig(num_values=7, stage_rounds=(2,), weighting="plain"),
    "qat-stages": QatConfig(stages=(9, 4), stage_rounds=(1, 2), fisher_images=32, zero=True, gradual_start=0.5),
    "qat-powers": QatConfig(num_values=7, values="powers_of_two", b=5, fisher_images=32),
    "qat-path-following": qat_started_by("path_following"),
    "qat-gptq": qat_started_by("gptq"),
    "qat-rate": QatConfig(num_values=9, rate_strength=0.02, weighting="plain", zero=True),
    "qat-rate-fisher": QatConfig(stages=(9, 4), stage_rounds=(2, 1), rate_strength=0.02, fisher_images=32),
}
CASES = [name for name, config in CONFIGS.items() if config.name in METHODS]
TRAINING = [name for name in CASES if CONFIGS[name].name in ("pwfn", "wfn", "qat")]
FIXING_GRADUALLY = [name for name in TRAINING if hasattr(CONFIGS[name], "fractions")]
HOLDING = [name for name in FIXING_GRADUALLY if getattr(CONFIGS[name], "fixed_weights", "hold") == "hold"]
SHARING = [name for name in TRAINING if getattr(CONFIGS[name], "fixed_weights", "hold") == "hold"]
"""Whose weights keep their place in the codebook when they settle; live ones may still change it."""
FREE_VALUES = [name for name in SHARING if getattr(CONFIGS[name], "values", "free") == "free"]
"""Powers of two move by whole steps, if they do."""
STAYING = [
    name
    for name in FREE_VALUES
    if CONFIGS[name].name != "qat" and getattr(CONFIGS[name], "codebook", "lattice") == "lattice"
]
MOVING = [name for name in FREE_VALUES if name not in STAYING]


def fixed_set(network):
    return torch.cat([p.detach().reshape(-1) for p in split_parameters(network).fixable.values()])


def run(name, network="convolutional", *, seed=0, state=None, **task):
    task = make_task(network, method=CONFIGS[name], seed=seed, **task)
    method = METHODS[CONFIGS[name].name](task)
    return task, list(run_rounds(method, state))


@cache
def settle(name):
    """Run a method's rounds and settle; return the network, its weights before and after, the codebook and a bias."""
    config = CONFIGS[name]
    task = make_task(method=config, training=SHORT.model_copy(update={"settle_epochs": 2}))
    method = METHODS[config.name](task)
    for index in range(len(method.fractions)):
        method.train(index)
        fixing = method.fix(index)
    before, bias = fixed_set(task.network), task.network[1].bias.clone()
    settled = method.settle(fixing)
    return task.network, before, fixed_set(task.network), settled.codebook, bias


def numbers(record):
    """The record without times and functions."""
    measured = ("round", "fraction", "before", "after", "metrics", "train_loss", "recalibrated_bn")
    return {name: getattr(record, name) for name in measured}


def test_every_method_has_a_case():
    assert {config.name for config in CONFIGS.values()} >= set(METHODS)


@pytest.mark.parametrize("name", CASES)
class TestEveryMethod:
    @pytest.mark.parametrize("network", NETWORKS)
    def test_fixes_every_weight_and_reports_what_the_network_holds(self, name, network):
        task, records = run(name, network)
        weights = fixed_set(task.network)
        last = records[-1]
        assert [record.round for record in records] == list(range(records[0].num_rounds))
        assert last.is_last
        assert last.fraction == 1
        assert last.fixing.num_fixed == len(weights)
        assert last.metrics == measure_codebook(Codebook.of(weights))
        assert last.metrics.unique_values == len(set(weights.tolist())) < len(weights) / 2
        assert last.after == task.measure("validation")
        assert (last.test_before is not None) == (last.train_loss is not None)
        assert last.recalibrated_bn == (network == "convolutional")
        assert weights.isfinite().all()
        assert not (weights.signbit() & (weights == 0)).any()  # no negative zero

    def test_the_file_holds_as_many_values_as_are_reported(self, name, tmp_path):
        task, records = run(name)
        path = tmp_path / "network.safetensors"
        path.write_bytes(encode_network(task.network, {}))
        state = load_state(path)
        values = {value for key in split_parameters(task.network).fixable for value in state[key].flatten().tolist()}
        assert len(values) == records[-1].metrics.unique_values

    def test_is_deterministic_for_a_seed(self, name):
        one, records = run(name, seed=3)
        other, again = run(name, seed=3)
        assert [numbers(record) for record in records] == [numbers(record) for record in again]
        assert torch.equal(fixed_set(one.network), fixed_set(other.network))

    def test_goes_on_after_any_round_to_the_same_end(self, name):
        whole, records = run(name, seed=1)
        task = make_task(method=CONFIGS[name], seed=1)
        states = [dict(record.state()) for record in run_rounds(METHODS[CONFIGS[name].name](task))]
        for state in states[:-1]:
            resumed, rest = run(name, seed=1, state=state)
            assert [numbers(record) for record in rest] == [numbers(r) for r in records[-len(rest) :]]
            assert torch.equal(fixed_set(resumed.network), fixed_set(whole.network))


@pytest.mark.parametrize("name", HOLDING)
class TestEveryMethodThatHoldsFixedWeights:
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_fixed_weights_do_not_move_in_training(self, name, optimizer):
        training = SHORT.model_copy(update={"optimizer": optimizer, "weight_decay": 0.1})
        task = make_task(method=CONFIGS[name], training=training)
        method = METHODS[CONFIGS[name].name](task)
        num_fixed = 0
        for index in range(len(method.fractions)):
            before = fixed_set(task.network)
            method.train(index)
            num_still = int((fixed_set(task.network) == before).sum())
            assert num_still < len(before)  # the free ones move
            assert num_still >= num_fixed
            num_fixed = method.fix(index).num_fixed


@pytest.mark.parametrize("name", FIXING_GRADUALLY)
class TestEveryMethodThatFixesGradually:
    def test_the_fixed_share_grows_as_planned(self, name):
        task, records = run(name)
        total = len(fixed_set(task.network))
        planned = [-(-total * int(1000 * record.fraction) // 1000) for record in records]
        assert [record.fixing.num_fixed for record in records] == planned


@pytest.mark.parametrize("name", SHARING)
def test_settling_moves_weights_of_one_value_together_if_at_all(name):
    _, before, after, _, _ = settle(name)
    moves = set(zip(before.tolist(), after.tolist(), strict=True))
    assert len(moves) == len(set(before.tolist())) == len(set(after.tolist()))
    assert torch.equal(before == 0, after == 0)


@pytest.mark.parametrize("name", STAYING)
def test_settling_leaves_the_values_of_a_lattice(name):
    _, before, after, _, _ = settle(name)
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", TRAINING)
class TestEveryTrainingMethod:
    def test_a_divergence_is_named(self, name):
        training = TrainingConfig(lr=1e38, batch_size=64, start_fraction=1.0, rest_epochs=1, clip_norm=None)
        with pytest.raises(NonFiniteLossError, match=r"loss is (nan|inf) in round \d+ epoch 1, step \d"):
            run(name, training=training)

    def test_settling_trains_norm_layers_and_knows_its_codebook(self, name):
        network, before, after, codebook, bias = settle(name)
        assert not torch.equal(network[1].bias, bias)
        assert not torch.equal(before, after) or name not in MOVING
        assert measure_codebook(codebook) == measure_codebook(Codebook.of(after))

    def test_a_teacher_is_learnt_from(self, name):
        training = SHORT.model_copy(update={"distillation": 1.0, "temperature": 2.0})
        task = make_task(method=CONFIGS[name], training=training).ready()
        assert task.teacher is not None
        images, _ = next(task.batches("validation", batch_size=50))
        records = list(run_rounds(METHODS[CONFIGS[name].name](task)))
        assert records[-1].train_loss < 1.5  # it starts as the teacher, with random weights; labels would cost 2.3
        assert not torch.equal(task.teacher(images), task.network(images))

    def test_training_helps(self, name):
        """The network starts with random weights; after three short rounds it must know more than chance."""
        _, records = run(name, training=SHORT.model_copy(update={"rest_epochs": 6, "start_epochs": 6, "lr": 0.05}))
        assert records[-1].after.top1 > 0.5
        assert dataclasses.asdict(records[-1].after)["top5"] > records[-1].after.top1
