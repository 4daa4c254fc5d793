"""The distance from a teacher's predictions as a part of the loss."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn
from torch.nn.functional import cross_entropy

from pwfn.criterion import Distillation, cross_entropy_of_labels, teacher_of


def batch():
    torch.manual_seed(0)
    return torch.randn(12, 5), torch.randint(4, (12,))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_its_definition(temperature):
    images, labels = batch()
    network = nn.Linear(5, 4)
    logits = torch.randn(12, 4)
    found = Distillation(network, 1.0, temperature)(logits, images, labels)
    p = log_softmax(network(images).detach().double().numpy() / temperature, axis=1)
    q = log_softmax(logits.double().numpy() / temperature, axis=1)
    expected = temperature**2 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_weight_shares_the_loss_with_the_labels():
    images, labels = batch()
    network, logits = nn.Linear(5, 4), torch.randn(12, 4)
    of_teacher, of_both = (Distillation(network, weight, 2.0)(logits, images, labels) for weight in (1.0, 0.25))
    expected = 0.25 * of_teacher + 0.75 * cross_entropy(logits, labels)
    torch.testing.assert_close(of_both, expected)
    assert cross_entropy_of_labels(logits, images, labels) == cross_entropy(logits, labels)


def test_a_teacher_is_the_network_as_it_was_and_does_not_learn():
    images, labels = batch()
    network = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5)).train()
    teacher = teacher_of(network)
    criterion = Distillation(teacher, 1.0, 1.0)
    loss = criterion(network.eval()(images), images, labels)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        network[0].weight.add_(1)
    criterion(network(images), images, labels).backward()
    assert network[0].weight.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not torch.equal(teacher[0].weight, network[0].weight)
