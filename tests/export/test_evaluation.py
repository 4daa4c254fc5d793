import pytest
import torch

from pwfn.config import DataConfig, ModelConfig
from pwfn.errors import UserError
from pwfn.export.evaluation import TestImages, evaluate_ensemble, evaluate_mean
from pwfn.models import build_network
from pwfn.parameters import split_parameters
from pwfn.seeds import generator

DIGITS = DataConfig(name="digits")


@pytest.fixture
def network():
    return build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1)


def test_all_test_images_are_measured(network):
    images = TestImages(DIGITS, network, batch_size=100)
    batches = list(images)
    assert sum(len(labels) for _, labels in batches) == len(images) == 359
    right = sum(int((network(pixels).argmax(1) == labels).sum()) for pixels, labels in batches)
    assert evaluate_mean(network, images).top1 == pytest.approx(right / 359)


def test_data_of_other_classes_is_refused():
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=3, in_channels=1)
    with pytest.raises(UserError, match="data: digits has 10 classes, but the network tells 3 apart"):
        TestImages(DIGITS, network, batch_size=9)


def test_data_of_other_channels_is_refused():
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=3)
    with pytest.raises(UserError, match="images have 1 channels, but the network takes 3"):
        TestImages(DIGITS, network, batch_size=9)


def test_images_are_resized_to_the_network():
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1, image_size=16)
    images, _ = next(iter(TestImages(DIGITS, network, batch_size=9)))
    assert images.shape == (9, 1, 16, 16)


def test_an_ensemble_without_noise_is_the_mean_network(network):
    images = TestImages(DIGITS, network, batch_size=100)
    sigmas = {name: torch.zeros_like(p) for name, p in split_parameters(network).fixable.items()}
    assert evaluate_ensemble(network, sigmas, images, draws=2) == evaluate_mean(network, images)


def test_an_ensemble_draws_around_the_mean_and_restores_it(network):
    images = TestImages(DIGITS, network, batch_size=100)
    sigmas = {name: torch.full_like(p, 0.5) for name, p in split_parameters(network).fixable.items()}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, again, other = (evaluate_ensemble(network, sigmas, images, draws=3, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_ensemble_averages_probabilities(network):
    batches = list(TestImages(DIGITS, network, batch_size=400))
    sigmas = {name: torch.full_like(p, 0.2) for name, p in split_parameters(network).fixable.items()}
    found = evaluate_ensemble(network, sigmas, batches, draws=3, seed=5)
    noise, total = generator(torch.device("cpu"), 5, "ensemble"), 0
    (images, labels), parameters = batches[0], dict(network.named_parameters())
    for _ in range(3):
        drawn = {
            name: parameters[name] + sigma * torch.randn(sigma.shape, generator=noise) for name, sigma in sigmas.items()
        }
        total = total + torch.func.functional_call(network, drawn, (images,)).softmax(dim=1)
    assert found.top1 == pytest.approx(float((total.argmax(1) == labels).double().mean()))


def test_classes_are_compared_by_name(network):
    names = [str(number) for number in range(10)]
    assert len(TestImages(DIGITS, network, batch_size=100, class_names=names)) == 359
    message = (
        "differ: the same 10 names in another order, class 0 is '0' and '9'; see .*--data-class-order.*--data-class-map"
    )
    with pytest.raises(UserError, match=message):
        TestImages(DIGITS, network, batch_size=100, class_names=names[::-1])
    with pytest.raises(UserError, match="differ: class 3 is '3' and 'three'"):
        TestImages(DIGITS, network, batch_size=100, class_names=[*names[:3], "three", *names[4:]])
