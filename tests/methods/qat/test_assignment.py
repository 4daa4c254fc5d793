"""Which value each weight takes, against the definition: the one that costs the least."""

import pytest
import torch

from pwfn.methods.qat.assignment import (
    assign_,
    assign_by_importance_,
    counts_by_value,
    edges_between,
    show_,
    sums_by_value,
)

SIZES = [1, 2, 3, 8, 16, 17, 18, 40, 256]  # up to 17 values are compared one by one, more are looked up


def drawn(num_values, seed, *, repeated=False):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_values, generator=generator).sort().values * 10.0 ** (seed % 5 - 3)
    if repeated:
        values = torch.cat([values, values]).sort().values[:num_values]
    return torch.randn(20_000, generator=generator), values, torch.rand(num_values, generator=generator)


@pytest.mark.parametrize("num_values", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_those_of_bucketize_on_edges_too(num_values, seed):
    weights, values, penalties = drawn(num_values, seed, repeated=seed == 1)
    for edges in (edges_between(values), edges_between(values, 10.0 ** (3 * seed - 5) * penalties)):
        weights[: len(edges)] = edges
        weights[300:304] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0])
        places = torch.empty(len(weights), dtype=torch.uint8)
        assign_(places, weights, edges)
        assert torch.equal(places.int(), torch.bucketize(weights, edges, out_int32=True))


@pytest.mark.parametrize("num_values", SIZES)
@pytest.mark.parametrize("strength", [0.0, 1e-3, 0.1, 10.0])
def test_every_weight_takes_the_value_that_costs_least(num_values, strength):
    weights, values, penalties = drawn(num_values, 3)
    penalties *= strength
    costs = (weights[:, None].double() - values.double()) ** 2 + penalties.double()
    places = torch.empty(len(weights), dtype=torch.uint8)
    assign_(places, weights, edges_between(values, penalties))
    assert (costs.gather(1, places[:, None].long())[:, 0] <= costs.min(dim=1).values * (1 + 1e-5) + 1e-7).all()


def test_importance_lets_a_weight_pay_for_its_error():
    weights, values, penalties = drawn(8, 4)
    importance = torch.rand(len(weights), generator=torch.Generator().manual_seed(0)) + 0.01
    costs = importance[:, None] * (weights[:, None] - values) ** 2 + penalties
    places, plain = torch.empty(len(weights), dtype=torch.uint8), torch.empty(len(weights), dtype=torch.uint8)
    assign_by_importance_(places, weights, importance, values, penalties)
    assert torch.equal(places.long(), costs.argmin(dim=1))
    assign_by_importance_(plain, weights, torch.ones_like(weights), values, penalties)
    assign_(places, weights, edges_between(values, penalties))
    assert (plain == places).float().mean() > 0.999  # but for weights on an edge


def test_a_dear_value_between_two_cheap_ones_gets_no_weight():
    edges = edges_between(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0, 5.0, 0.0]))
    assert edges.tolist() == [0.0, 0.0]


def test_values_are_shown_and_sums_are_of_their_weights():
    weights, values, _ = drawn(5, 0)
    places = torch.empty(len(weights), dtype=torch.uint8)
    assign_(places, weights, edges_between(values))
    shown = torch.empty_like(weights)
    show_(shown, places, values)
    assert torch.equal(shown, values[places.long()])
    sums, counts = sums_by_value(places, weights, 5), counts_by_value(places, 5)
    for index in range(5):
        assert float(sums[index]) == pytest.approx(float(weights[places == index].double().sum()), rel=1e-4, abs=1e-3)
        assert counts[index] == (places == index).sum()
