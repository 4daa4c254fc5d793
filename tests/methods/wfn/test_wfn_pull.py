"""The tabulated regulariser against the full softmin over all centres, and autograd's derivative of it."""

import numpy as np
import pytest
import torch
from slow_wfn import slow_centres, slow_expected_distances

from pwfn.methods.wfn import Pull, assign

ZERO_DISTANCE = 2.0**-7
TOLERANCE = 1e-4


def gaussian(num_weights, seed=0, scale=0.2):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, num_weights).astype(np.float32))


def codebook_of_a_round(delta, share):
    """The values that a real round leaves, with the weights it leaves free."""
    weights = gaussian(20_000)
    fixed = torch.zeros(len(weights), dtype=torch.bool)
    groups = assign(weights, fixed, need=int(share * len(weights)), allowed=delta, zero_distance=ZERO_DISTANCE)
    for group in groups:
        fixed[group.places] = True
    return np.unique([group.value for group in groups]), weights[~fixed]


CASES = {
    "round 2": codebook_of_a_round(0.1, 0.3),
    "round 9": codebook_of_a_round(0.015, 0.99),
    "densest grid": (slow_centres(20, 0.0075, ZERO_DISTANCE, 1.0), gaussian(5000)),
    "one centre": (np.array([0.25]), gaussian(2000)),
    "zero alone": (np.array([0.0]), gaussian(2000)),
    "one sign": (np.array([0.0, 0.125, 0.5]), gaussian(2000)),
    "far beyond the codebook": (np.array([-0.0625, 0.0, 0.03125, 0.0625]), gaussian(2000, scale=4.0)),
    "small weights": (slow_centres(0, 0.1, ZERO_DISTANCE, 0.5), gaussian(2000, scale=0.005)),
    "any values": (np.random.default_rng(1).normal(0, 0.2, 60), gaussian(5000)),
    "centres below the zero distance": (np.array([-0.001, 0.0, 0.002, 0.5]), gaussian(2000, scale=0.01)),
}


def both(name, temperature=0.05):
    centres, weights = CASES[name]
    weights = weights[~torch.isin(weights, torch.from_numpy(centres).float())]  # no derivative there
    pull = Pull(centres, temperature=temperature, zero_distance=ZERO_DISTANCE, largest=float(weights.abs().max()))
    exact = weights.double().requires_grad_()
    full = slow_expected_distances(exact, torch.from_numpy(centres), temperature, ZERO_DISTANCE)
    full.sum().backward()
    return *pull(weights), full.detach(), exact.grad


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.3, 10.0])
def test_the_error_against_the_full_softmin_is_below_one_in_ten_thousand(name, temperature):
    distance, _, full, _ = both(name, temperature)
    assert abs(distance.double().mean() - full.mean()) <= TOLERANCE * full.mean()
    error = (distance - full).abs()
    assert (error <= TOLERANCE * full + 1e-8).all()  # each weight for itself, too


@pytest.mark.parametrize("name", CASES)
def test_the_slope_is_the_derivative_of_the_full_softmin(name):
    _, slope, _, derivative = both(name)
    assert (slope - derivative).norm() <= 1e-3 * derivative.norm() + 1e-7


@pytest.mark.parametrize("sign", [1, -1])
def test_borders_belong_to_the_side_that_the_definition_says(sign):
    """Up to the zero distance distances are absolute; just beyond, relative."""
    centres = np.array([-0.25, -(2.0**-6), 0.0, 2.0**-6, 0.25])
    at = np.float32(sign * ZERO_DISTANCE)
    weights = torch.tensor([at, np.nextafter(at, np.float32(sign)), 0.0, sign * 0.25], dtype=torch.float32)
    pull = Pull(centres, temperature=0.05, zero_distance=ZERO_DISTANCE, largest=0.25)
    full = slow_expected_distances(weights.double(), torch.from_numpy(centres), 0.05, ZERO_DISTANCE)
    torch.testing.assert_close(pull(weights)[0].double(), full, rtol=1e-4, atol=1e-8)
    assert full[1] > 10 * full[0]


def test_a_weight_between_two_values_is_pulled_to_the_nearer():
    pull = Pull(np.array([0.25, 0.5]), temperature=0.05, zero_distance=ZERO_DISTANCE, largest=1.0)
    _, slope = pull(torch.tensor([0.27, 0.48, 0.52]))
    assert slope[0] > 0  # descending the slope lowers the weight
    assert slope[1] < 0
    assert slope[2] > 0


def test_the_table_grows_by_a_cell_for_each_centre_at_most():
    """A weight costs a look-up of its bin and one of its cell, whatever the number of centres."""

    def table(centres):
        return Pull(centres, temperature=0.05, zero_distance=ZERO_DISTANCE, largest=1.0)

    many = np.random.default_rng(0).uniform(-1, 1, 2000)
    empty, dense, random = table(np.array([0.0])), table(CASES["densest grid"][0]), table(many)
    assert len(empty.table.upper_edge) <= 10 * 128 + 1  # octaves of 128 bins each
    assert len(dense.table.upper_edge) <= len(empty.table.upper_edge) + 649 // 2
    assert len(random.table.upper_edge) <= len(empty.table.upper_edge) + 2000
    assert dense.table.most_kinks <= 1


def test_weights_beyond_the_table_feel_its_end():
    pull = Pull(np.array([0.5]), temperature=0.05, zero_distance=ZERO_DISTANCE, largest=1.0)
    distance, slope = pull(torch.tensor([2.0, 2.1, 50.0, torch.inf]))
    assert distance[0] == pytest.approx(0.75, rel=1e-4)
    assert distance[0] < distance[1] == distance[2] == distance[3]
    assert slope[1] == slope[2] == slope[3] > 0


def test_all_weights_zero_are_pulled_nowhere():
    pull = Pull(np.array([0.0]), temperature=0.05, zero_distance=ZERO_DISTANCE, largest=0.0)
    distance, slope = pull(torch.zeros(3))
    assert distance.dtype == slope.dtype == torch.float32
    assert not distance.any()
    assert not slope.any()
