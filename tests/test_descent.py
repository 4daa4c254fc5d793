"""The flat optimiser step against torch's own, and what it holds still."""

import pytest
import torch

from pwfn.config import TrainingConfig
from pwfn.descent import Descent, FusedSgd, _scheduler
from pwfn.replicas import Replicas


def run(config, held=None, steps=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(40, generator=generator)
    gradient = torch.zeros_like(values)
    descent = Descent(values, gradient, config, num_steps=steps, replicas=Replicas(), held=held)
    for _ in range(steps):
        gradient.copy_(torch.randn(40, generator=generator))
        descent.step()
    return values


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_equals_torchs_optimiser_with_clipping_and_decay(optimizer, schedule):
    config = TrainingConfig(optimizer=optimizer, lr=0.1, lr_schedule=schedule, weight_decay=0.01, clip_norm=2.0)
    ours = run(config)

    generator = torch.Generator().manual_seed(0)
    values = torch.nn.Parameter(torch.randn(40, generator=generator))
    make = {
        "sgd": lambda: torch.optim.SGD([values], lr=0.1, momentum=0.9, weight_decay=0.01),
        "adam": lambda: torch.optim.Adam([values], lr=0.1, weight_decay=0.01),
    }
    theirs = make[optimizer]()
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=7)
    for _ in range(7):
        values.grad = torch.randn(40, generator=generator)
        torch.nn.utils.clip_grad_norm_([values], 2.0)
        theirs.step()
        if schedule == "cosine":
            cosine.step()
    torch.testing.assert_close(ours, values.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_held_values_never_move_and_the_rest_does(optimizer):
    held = torch.arange(40) % 3 == 0
    config = TrainingConfig(optimizer=optimizer, lr=0.1, weight_decay=0.1)
    start = torch.randn(40, generator=torch.Generator().manual_seed(0))
    end = run(config, held=held)
    assert torch.equal(end[held], start[held])
    assert (end[~held] != start[~held]).all()


def test_held_gradients_do_not_count_for_the_norm():
    config = TrainingConfig(lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=1.0)
    values, gradient = torch.zeros(2), torch.tensor([1000.0, 0.5])
    Descent(values, gradient, config, num_steps=1, replicas=Replicas(), held=torch.tensor([True, False])).step()
    torch.testing.assert_close(values, torch.tensor([0.0, -0.5]))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_the_step_of_a_gpu_is_that_of_torchs_optimiser(momentum, clip_norm):
    """The same function that a GPU runs as one kernel, here on a CPU, beside the pieces and the optimiser of torch."""
    config = TrainingConfig(lr=0.1, momentum=momentum, clip_norm=clip_norm, weight_decay=0.01, lr_schedule="cosine")
    held = torch.arange(40) % 3 == 0
    pieces = [(30, 1.0), (10, 0.3)]
    ends = []
    for fused in (False, True):
        generator = torch.Generator().manual_seed(0)
        values, gradient = torch.randn(40, generator=generator), torch.zeros(40)
        descent = Descent(values, gradient, config, num_steps=5, replicas=Replicas(), held=held, lr_factors=pieces)
        if fused:
            descent = as_on_a_gpu(descent)
        for step in range(5):
            gradient.copy_(torch.randn(40, generator=generator))
            descent.step()
            if step == 2:
                again = Descent(
                    values, gradient, config, num_steps=5, replicas=Replicas(), held=held, lr_factors=pieces
                )
                again = as_on_a_gpu(again) if not fused else again  # each goes on from the other's state
                again.load_state(descent.state())
        assert torch.equal(values[held], torch.randn(40, generator=torch.Generator().manual_seed(0))[held])
        ends.append(values)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)


def as_on_a_gpu(descent):
    """A descent with the optimiser that it would have on a GPU."""
    groups = [{"params": group["params"], "lr": group["lr"]} for group in descent.optimizer.param_groups]
    descent.optimizer = FusedSgd(groups, descent.config, descent.free)
    descent.scheduler = _scheduler(descent.optimizer, descent.config, 5)
    return descent
