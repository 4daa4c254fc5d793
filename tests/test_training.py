"""One epoch, one evaluation, one estimate of BatchNorm's statistics."""

import time

import pytest
import torch
from torch import nn

from pwfn.config import TrainingConfig
from pwfn.descent import Descent
from pwfn.errors import NonFiniteLossError
from pwfn.parameters import FlatParameters
from pwfn.replicas import Replicas
from pwfn.training import Learner, Waiting, count_hits, evaluate, recalibrate_batchnorm, train_epoch

ONE = Replicas()


def learner_for(network, lr=0.1):
    flat = FlatParameters(network.parameters())
    config = TrainingConfig(lr=lr, weight_decay=0.0, clip_norm=None)
    return Learner(network, Descent(flat.values, flat.gradient, config, num_steps=100, replicas=ONE), [flat])


def test_an_epoch_learns_and_returns_the_mean_loss():
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    images = torch.randn(60, 4)
    labels = images[:, :3].argmax(dim=1)
    learner = learner_for(network)
    batches = list(zip(images.split(20), labels.split(20), strict=True))
    first = train_epoch(learner, batches, precision="float32", replicas=ONE, label="epoch 1")
    for _ in range(20):
        last = train_epoch(learner, batches, precision="float32", replicas=ONE, label="epoch")
    assert last < 0.6 * first
    assert evaluate(network, batches, precision="float32", replicas=ONE).top1 > 0.85


def test_a_loss_that_is_not_finite_names_epoch_and_step():
    network = nn.Linear(4, 3)
    good, bad = (torch.ones(2, 4), torch.tensor([0, 1])), (torch.full((2, 4), float("nan")), torch.tensor([0, 1]))
    with pytest.raises(NonFiniteLossError, match=r"the training loss is nan in round 2 epoch 1, step 3"):
        train_epoch(learner_for(network), [good, good, bad, good], precision="float32", replicas=ONE,
                    label="round 2 epoch 1")  # fmt: skip


def test_a_lost_trial_is_stopped_long_before_the_end_of_its_epoch():
    seen = []

    def batches():
        for step in range(1000):
            seen.append(step)
            yield torch.full((2, 4), float("inf")), torch.tensor([0, 1])

    with pytest.raises(NonFiniteLossError):
        train_epoch(learner_for(nn.Linear(4, 3)), batches(), precision="float32", replicas=ONE, label="epoch 1")
    assert len(seen) <= 100


def test_only_waiting_for_batches_counts_as_waiting():
    def batches():
        for _ in range(3):
            time.sleep(0.03)
            yield torch.ones(2, 4), torch.tensor([0, 1])
        time.sleep(0.03)

    waiting = Waiting()
    for _ in waiting.counted(batches()):
        time.sleep(0.2)
    assert 0.12 <= waiting.lap() < 0.6
    assert waiting.lap() == 0


def test_hits_are_counted_like_topk_where_nothing_ties():
    scores, labels = torch.randn(200, 10), torch.randint(10, (200,))
    top5 = scores.topk(5).indices
    expected = [(top5[:, 0] == labels).sum(), (top5 == labels[:, None]).any(dim=1).sum(), torch.tensor(200)]
    assert count_hits(scores, labels).tolist() == [int(value) for value in expected]


@pytest.mark.parametrize("scores", [torch.zeros(6, 10), torch.full((6, 10), float("nan"))])
def test_a_network_that_says_nothing_is_not_accurate(scores):
    assert count_hits(scores, torch.arange(6)).tolist() == [0, 0, 6]


def test_recalibration_gives_the_mean_statistics_of_the_batches():
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    network[1].running_mean.fill_(50.0)
    batches = [(torch.randn(16, 2, 4, 4) + shift, torch.zeros(16)) for shift in (0.0, 1.0, 2.0)]
    assert recalibrate_batchnorm(network, batches, replicas=ONE)
    outputs = [network[0](images).detach() for images, _ in batches]
    mean = torch.stack([output.mean(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    variance = torch.stack([output.transpose(0, 1).flatten(1).var(dim=1) for output in outputs]).mean(dim=0)
    torch.testing.assert_close(network[1].running_mean, mean)
    torch.testing.assert_close(network[1].running_var, variance)
    assert network[1].momentum == 0.1
    assert not network[1].training


def test_recalibration_says_when_there_is_nothing_to_do():
    assert not recalibrate_batchnorm(nn.Linear(2, 2), [], replicas=ONE)
