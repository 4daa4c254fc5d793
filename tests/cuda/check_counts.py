"""Limits of what the steps cost on a GPU, counted; `test_pretended_cuda.py` runs this in a process of its own."""

import functools

import pretended_cuda  # before torch
import pytest
import torch
from counts import VARIANTS, step_counts
from pretended_cuda import MOST_BY_KTHVALUE, ledger

import pwfn.fused
from pwfn.methods.pwfn.clustering.cut import largest
from pwfn.methods.wfn import assign
from pwfn.methods.wfn.assignment import LAST_ORDER
from pwfn.parameters import quantiles

MOST_FLOATS = {"PWFN": 15.0, "qat": 4.0, "WFN": 6.5}
"""Numbers that a step may move beyond a plain one, per weight; 62, 20 and 67 before kernels were fused."""
MORE_LAUNCHES = 25


@functools.cache
def counted():
    return step_counts("digits_cnn", image_size=8)


@pytest.mark.parametrize("label", VARIANTS)
def test_a_step_moves_little_and_launches_few_kernels(label):
    counts = counted()[label]
    assert counts.floats <= MOST_FLOATS[label.partition(",")[0]], counts.by_operation
    assert counts.launches <= counts.plain_launches + MORE_LAUNCHES
    assert counts.plain_launches > 20  # they are counted at all


def test_weights_that_lie_channels_last_are_not_brought_into_another_order():
    label = "PWFN, half fixed"
    [changed] = step_counts("digits_cnn", image_size=8, labels=[label], channels_last=True).values()
    assert changed.floats < counted()[label].floats - 3.5
    assert changed.launches < counted()[label].launches
    assert changed.by_operation["to channels last"] < -1.5  # of the plain step


def test_without_the_compiler_a_step_moves_more(monkeypatch):
    monkeypatch.setattr(pwfn.fused._Switch, "is_on", False)
    [counts] = step_counts("digits_cnn", image_size=8, labels=["PWFN, half fixed"]).values()
    assert counts.floats > 2 * MOST_FLOATS["PWFN"]


def test_ranks_among_many_numbers_take_one_sort():
    numbers = torch.randn(MOST_BY_KTHVALUE + 1, generator=torch.Generator().manual_seed(0))
    expected = quantiles(numbers, (0.1, 0.5)), largest(numbers, 10)
    with pretended_cuda.pretended_cuda():
        on_device = numbers.to("cuda")
        found = quantiles(on_device, (0.1, 0.5)), largest(on_device, 10)
        assert all(torch.equal(one, other.cpu()) for one, other in zip(expected, found, strict=True))
        with pytest.raises(RuntimeError, match="one thread block"):
            on_device.kthvalue(3)


@pytest.mark.parametrize(("delta", "fewest_groups"), [(0.1, 40), (0.01, 300)])
def test_wfn_waits_for_orders_and_not_for_groups(delta, fewest_groups):
    weights = 0.1 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    options = {"need": 20_000, "allowed": delta, "zero_distance": 2.0**-7}
    expected = assign(weights, torch.zeros(20_000, dtype=torch.bool), **options)
    with pretended_cuda.pretended_cuda():
        fixed = torch.zeros(20_000, dtype=torch.bool, device="cuda")
        on_device = weights.to("cuda")
        ledger.clear()
        found = assign(on_device, fixed, **options)
        waits = sum(ledger.waits.values())
        found = [(value, places.tolist()) for value, places in found]
    assert found == [(value, places.tolist()) for value, places in expected]
    assert len(found) >= fewest_groups
    assert waits <= 4 * (LAST_ORDER + 1)
