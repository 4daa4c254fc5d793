"""GPFQ on whole networks: its options, timm's families, layers it cannot treat, several replicas."""

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import logging

import pytest
import timm
import torch
from method_cases import make_task
from torch import nn

from pwfn.config import DataConfig, EvaluationConfig, GpfqConfig, KmeansConfig, ModelConfig, MsqConfig, TrialConfig
from pwfn.data import Preprocessing, open_source
from pwfn.methods import METHODS
from pwfn.methods.gpfq.layers import call_of, fixable_layers
from pwfn.methods.gpfq.method import Gpfq
from pwfn.methods.gpfq.msq import Msq
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.task import Task

QUICK = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "mobilenetv3_small_050"]
"""The test_ ones are timm's own, a few layers of each family."""
WHOLE = [
    "resnet18",
    "densenet121",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
]
SIDE = 64


def quantize(network="convolutional", *, seed=0, evaluation=None, **config):
    task = make_task(network, seed=seed, method=GpfqConfig(**{"bits": 3, "calibration_images": 64, **config}))
    return task, Gpfq(task).fix(0)


def fixed_set(task):
    return torch.cat([p.detach().flatten() for p in split_parameters(task.network).fixable.values()])


def output_error(task, images):
    """How far the network's scores are from those of the float network."""
    original = make_task("convolutional").network.eval()
    with torch.no_grad():
        return float((task.network(images) - original(images)).norm())


def images_of(task, split="train", count=64):
    return next(iter(task.data.batches(split, batch_size=count, max_images=count)))[0]


def test_keeps_the_scores_better_than_nearest_rounding():
    msq = make_task(method=MsqConfig(bits=3))
    Msq(msq).fix(0)
    gpfq, _ = quantize(calibration_images=256)
    images = images_of(gpfq, "test", 100)
    assert output_error(gpfq, images) < 0.6 * output_error(msq, images)


def test_each_layer_follows_the_path_of_its_own_inputs():
    """The last layer, by hand: X from the float network, X~ from the quantised one, one batch, the bias at the end."""
    task, _ = quantize()
    original = make_task("convolutional").network.eval()
    images = images_of(task)
    layer = fixable_layers(task.network)[-1]
    calls = [call_of(network, layer, images) for network in (original, task.network)]
    samples = [next(iter(call.samples()))[0].double() for call in calls]
    x, x_quantized = (torch.cat([rows, torch.ones_like(rows[:1])]) for rows in samples)
    weight = torch.cat([original[-1].weight, original[-1].bias[:, None]], dim=1).detach().double()
    step = float(weight[:, :-1].abs().amax(dim=1).mean()) / 4
    error, expected = torch.zeros(10, 64).double(), torch.zeros_like(weight)
    for t in range(weight.shape[1]):
        error += weight[:, t, None] * x[t]
        argument = error @ x_quantized[t] / x_quantized[t].square().sum().clamp(min=1e-300)
        expected[:, t] = (argument / step).round().clamp(-4, 4) * step
        error -= expected[:, t, None] * x_quantized[t]
    assert original[-1].bias.abs().max() < 4.5 * step  # so it shares the alphabet of the weights
    found = torch.cat([task.network[-1].weight, task.network[-1].bias[:, None]], dim=1)
    assert (torch.isclose(found.double(), expected, atol=1e-6).float().mean()) > 0.999  # float32 products
    assert found.unique().numel() > 5


@pytest.mark.parametrize(
    "config",
    [
        {"rounding": "stochastic"},
        {"sparsify": "l1", "threshold": 0.02},
        {"sparsify": "l0", "threshold": 0.02},
        {"order": "activation"},
        {"bits": 1, "radius": "median", "scale": 3.0},
        {"percentile": 0.9},
        {"shared_alphabet": True},
    ],
    ids=lambda config: next(iter(config)),
)
def test_every_option_changes_the_weights_and_keeps_the_alphabet(config):
    plain, _ = quantize()
    task, fixing = quantize(**config)
    assert not torch.equal(fixed_set(plain), fixed_set(task))
    levels = 2 ** config.get("bits", 3) + 3  # l0 has its threshold besides
    for layer in fixable_layers(task.network):
        assert all(parameter.unique().numel() <= levels for parameter in layer.parameters(task.network))
    assert fixing.untreated_layers == ()
    if "sparsify" in config:
        assert (fixed_set(task) == 0).sum() > (fixed_set(plain) == 0).sum()
    if "shared_alphabet" in config:
        assert len(fixing.codebook.values) <= 17  # the biases may have their own


def test_stochastic_rounding_follows_the_seed():
    one, again, other = (fixed_set(quantize(rounding="stochastic", seed=seed)[0]) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_layers_with_many_features_are_done_sample_by_sample_and_say_so(caplog):
    with caplog.at_level(logging.WARNING):
        task, _ = quantize("without_batchnorm", max_gram_features=63)
    assert [record.getMessage() for record in caplog.records] == [
        "gpfq: layer 1 has 64 features, above max_gram_features=63: done sample by sample on 63 samples"
    ]
    by_gram, _ = quantize("without_batchnorm", calibration_images=64)
    assert (fixed_set(task) == fixed_set(by_gram)).float().mean() > 0.8  # one of 64 samples is left out


@pytest.mark.parametrize("order", ["natural", "activation"])
def test_both_forms_give_the_same_network(order):
    """As many features as samples: the sample form leaves none out."""
    by_gram, _ = quantize("without_batchnorm", calibration_images=24, order=order)
    by_samples, _ = quantize("without_batchnorm", calibration_images=24, order=order, max_gram_features=31)
    assert (fixed_set(by_gram) == fixed_set(by_samples)).float().mean() > 0.998  # float32 products


class Recurrent(nn.Module):
    """Runs one layer twice and one not at all."""

    def __init__(self):
        super().__init__()
        self.unused, self.twice, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, images):
        return self.head(self.twice(self.twice(images.flatten(1)).relu()))


def test_layers_that_cannot_be_treated_are_rounded_and_named(caplog):
    task = make_task(method=GpfqConfig(bits=2, calibration_images=32))
    task = Task(Recurrent(), task.data, task.config, task.device, task.replicas)
    rounded = Task(Recurrent(), task.data, task.config.model_copy(update={"method": MsqConfig(bits=2)}), task.device,
                   task.replicas)  # fmt: skip
    rounded.network.load_state_dict(task.network.state_dict())
    with caplog.at_level(logging.WARNING):
        fixing = Gpfq(task).fix(0)
    Msq(rounded).fix(0)
    assert fixing.untreated_layers == ("unused", "twice")
    assert "gpfq: rounded to nearest, as path following cannot treat them: unused, twice" in caplog.text
    assert torch.equal(task.network.twice.weight, rounded.network.twice.weight)
    assert not torch.equal(task.network.head.weight, rounded.network.head.weight)


def test_every_replica_ends_with_the_network_of_one_alone():
    alone, _ = quantize(rounding="stochastic")
    for rank in range(2):
        task = make_task(method=GpfqConfig(bits=3, calibration_images=64, rounding="stochastic"))
        Gpfq(Task(task.network, task.data, task.config, task.device, Replicas(rank, 2))).fix(0)
        assert torch.equal(fixed_set(task), fixed_set(alone))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in WHOLE)])
def test_timm_families(name):
    """Random weights, eight calibration images: every layer is treated, and the scores stay closer than by rounding."""
    size = {"img_size": SIDE} if "vit" in name or "deit" in name else {}
    data = DataConfig(name="digits", train_images=32, validation_images=10, test_images=10, image_size=SIDE)
    prepared = open_source(data, seed=0).prepare(Preprocessing((0.3,), (0.37,), SIDE), torch.device("cpu"))
    errors = {}
    for method in (
        GpfqConfig(bits=4, calibration_images=8),
        MsqConfig(bits=4),
        KmeansConfig(assignment="gptq", calibration_images=8),
        KmeansConfig(),
    ):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=10, in_chans=1, **size).eval()
        trial = TrialConfig(data=data, model=ModelConfig(name=name), method=method, evaluation=EvaluationConfig())
        task = Task(network, prepared, trial, torch.device("cpu"), Replicas())
        images = images_of(task, count=8)
        with torch.no_grad():
            expected = network(images)
            fixing = METHODS[method.name](task).fix(0)
            errors[method] = float((network(images) - expected).norm() / expected.norm())
        assert fixing.untreated_layers == ()
        assert fixing.num_fixed == len(fixed_set(task))
    gpfq, msq, gptq, nearest = errors.values()
    assert gpfq < 0.9 * msq
    assert gptq < 0.9 * nearest
