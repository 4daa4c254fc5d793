"""The fast clustering against the slow transcription, and what every round promises."""

import numpy as np
import pytest
import torch
from clustering_cases import Case, assert_equals_slow, border_case, cluster, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_clustering import slow_cluster_round

from pwfn.codebook import Codebook, measure_codebook, value_orders
from pwfn.methods.pwfn.clustering import cluster_round

PAPER = {"radius": 1.0, "radius_growth": 2.0, "b": 7}


@pytest.mark.parametrize("block", range(10))
def test_random_rounds_equal_the_slow_ones(block: int) -> None:
    for seed in range(30 * block, 30 * (block + 1)):
        assert_equals_slow(random_case(seed))


@pytest.mark.parametrize("block", range(10))
def test_border_rounds_equal_the_slow_ones(block: int) -> None:
    for seed in range(40 * block, 40 * (block + 1)):
        assert_equals_slow(border_case(seed))


@pytest.mark.slow
def test_many_border_rounds_equal_the_slow_ones() -> None:
    for seed in range(10_000, 18_000):
        assert_equals_slow(border_case(seed))


def test_border_cases_tell_a_careless_comparison() -> None:
    """Without asking for the nearest integer exactly, mu -+ k sigma in float64 fails some of these very cases."""
    assert sum(careless_reach(case) != exact_reach(case) for case in map(border_case, range(400))) > 10


def exact_reach(case: Case) -> int:
    mu, s = case.mu.astype(np.float64), np.maximum(case.sigma, np.float32(2.0**-20)).astype(np.float64)
    centres = np.arange(-512, 513)[:, None] * 2.0**-case.b
    return int(sum((np.abs(centres - mu) / s <= radius).sum() for radius in radii(case)))


def careless_reach(case: Case) -> int:
    mu, s = case.mu.astype(np.float64), np.maximum(case.sigma, np.float32(2.0**-20)).astype(np.float64)
    centres = np.arange(-512, 513)[:, None] * 2.0**-case.b
    return int(sum(((mu - r * s <= centres) & (centres <= mu + r * s)).sum() for r in radii(case)))


def radii(case: Case) -> list[float]:
    return [case.radius * case.radius_growth**power for power in range(3)]


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    """Any weights up to 2^6 and lattice points, in arrangements that hypothesis shrinks."""
    b = draw(st.integers(2, 12))
    free_mu = st.floats(-64, 64, width=32)
    lattice_mu = st.integers(-(2**8), 2**8).map(lambda point: point * 2.0**-b)
    sigma = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([0.0, 2.0**-20, 2.0**-b, 0.05]))
    pairs = draw(st.lists(st.tuples(st.one_of(free_mu, lattice_mu), sigma), min_size=1, max_size=25))
    mu, sigmas = (np.array(column, dtype=np.float32) for column in zip(*pairs, strict=True))
    fixed = draw(st.none() | st.lists(st.booleans(), min_size=len(mu), max_size=len(mu)).map(np.array))
    return Case(
        mu,
        sigmas,
        fraction=draw(st.floats(0, 1, exclude_min=True)),
        radius=draw(st.floats(2.0**-10, 2.0**6)),
        radius_growth=draw(st.sampled_from([1.25, 2.0, 10.0])),
        b=b,
        zero_rule=draw(st.booleans()),
        max_order=draw(st.integers(1, 3)),
        fixed=fixed,
    )


@settings(max_examples=150, deadline=None)
@given(small_cases())
def test_any_small_round_equals_the_slow_one(case: Case) -> None:
    clustered = assert_equals_slow(case)
    assert_promises(case, clustered.codebook)


def assert_promises(case: Case, codebook: Codebook) -> None:
    num_before = 0 if case.fixed is None else int(case.fixed.sum())
    assert codebook.counts.sum() == max(int(np.ceil(len(case.mu) * case.fraction)), num_before)
    metrics = measure_codebook(codebook)
    assert metrics.entropy_bits <= np.log2(metrics.unique_values) + 1e-9 if metrics.unique_values else True


@pytest.mark.parametrize("b", range(2, 13))
def test_every_b_equals_the_slow_one(b: int) -> None:
    rng = np.random.default_rng(b)
    mu = np.append(rng.laplace(0, 0.1, 300), 0.9).astype(np.float32)
    sigma = np.abs(rng.normal(0, 0.02, 301)).astype(np.float32)
    assert_equals_slow(Case(mu, sigma, 0.95, 1.0, 2.0, b))


def test_weights_up_to_64_equal_the_slow_one() -> None:
    rng = np.random.default_rng(0)
    mu = rng.uniform(-64, 64, 400).astype(np.float32)
    assert_equals_slow(Case(mu, np.abs(rng.normal(0, 0.3, 400)).astype(np.float32), 1.0, 1.0, 2.0, 5))


def realistic(num_weights: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mu = torch.randn(num_weights, generator=generator) * 0.05
    mu[: num_weights // 300] *= 14
    sigma = (torch.randn(num_weights, generator=generator).abs_() * 0.003).clamp_(max=0.05)
    return mu, sigma


@pytest.mark.parametrize("num_weights", [32_767, 32_768, 70_000])
def test_several_chunks_equal_the_slow_one(num_weights: int) -> None:
    """Look-up tables and the histogram take the place of searching and sorting here; chunks have seams."""
    mu, sigma = (tensor.numpy() for tensor in realistic(num_weights))
    assert_equals_slow(Case(mu, sigma, 0.9, 1.0, 2.0, 6, fixed=np.arange(num_weights) % 7 == 0))


@pytest.mark.slow
def test_more_pairs_of_candidates_than_weights_equal_the_slow_one() -> None:
    """Codes are ranked rather than counted, over several chunks."""
    mu, sigma = (tensor.numpy() for tensor in realistic(40_000))
    assert_equals_slow(Case(mu, sigma * np.float32(0.1), 0.5, 1.0, 2.0, 18, max_order=2))


def test_ten_rounds_equal_ten_slow_ones() -> None:
    """Later rounds start from the values and sigmas that earlier ones wrote."""
    mu, sigma = realistic(3000)
    for fraction in (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0):
        clustered = assert_equals_slow(Case(mu.numpy(), sigma.numpy(), fraction, **PAPER))
        clustered.apply_(mu, sigma, "std_mu")
    assert Codebook.of(mu).values.tolist() == clustered.codebook.values.tolist()


def test_one_weight() -> None:
    clustered = assert_equals_slow(Case(np.float32([0.3]), np.float32([0.01]), 1.0, **PAPER))
    assert clustered.counts.tolist() == [1]


def test_all_equal_weights_share_one_value() -> None:
    clustered = assert_equals_slow(Case(np.full(50, 0.3, np.float32), np.full(50, 0.01, np.float32), 1.0, **PAPER))
    assert clustered.counts.tolist() == [50]


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("zero_rule", [True, False])
def test_all_zero_gives_the_one_value_zero(zero: float, zero_rule: bool) -> None:
    mu, sigma = torch.full((5,), zero), torch.zeros(5)
    clustered = cluster_round(mu, sigma, fraction=0.5, zero_rule=zero_rule, **PAPER)
    clustered.apply_(mu, sigma, "std_mu")
    assert clustered.values.tolist() == [0.0]
    assert clustered.counts.tolist() == [3]
    assert torch.signbit(mu[:3]).sum() == 0
    assert measure_codebook(clustered.codebook).entropy_bits == 0


def test_no_weights_give_no_clusters() -> None:
    clustered = cluster_round(torch.empty(0), torch.empty(0), fraction=1.0, **PAPER)
    clustered.apply_(torch.empty(0), torch.empty(0), "std_mu")
    assert (
        len(clustered.values) == len(clustered.counts) == len(clustered.orders) == len(clustered.cluster_of_weight) == 0
    )
    assert clustered.radius_end == 1.0
    assert measure_codebook(clustered.codebook).unique_values == 0


@pytest.mark.parametrize("zero_rule", [True, False])
def test_weights_below_the_smallest_value_go_to_zero(zero_rule: bool) -> None:
    """ceil(log2 m) - 1 < -b leaves no power in the base: zero is the only candidate, however far it is."""
    mu = torch.tensor([2.0**-7, -(2.0**-8), 1e-40])
    clustered = cluster_round(mu, torch.zeros(3), fraction=1.0, radius=1.0, radius_growth=2.0, b=7, zero_rule=zero_rule)
    assert set(clustered.values) == {0.0}
    assert clustered.counts.sum() == 3
    assert clustered.radius_end == 2.0**13  # 2^-7 is 2^13 floors of sigma away


def test_a_radius_that_overflows_reaches_everything() -> None:
    mu, sigma = torch.tensor([1e-3, 2.0, -64.0]), torch.full((3,), 1e-9)
    clustered = cluster_round(mu, sigma, fraction=1.0, radius=1e-307, radius_growth=1e308, b=7, zero_rule=False)
    assert clustered.radius_end == np.inf
    assert clustered.counts.sum() == 3


def test_a_radius_near_the_largest_float() -> None:
    case = Case(np.float32([0.3, 64, -2]), np.float32([1e30, 1, 0]), 1.0, 1e308, 2.0, 12)
    assert assert_equals_slow(case).counts.tolist() == [3]


def test_a_largest_weight_between_candidates_waits_for_the_radius() -> None:
    clustered = assert_equals_slow(Case(np.float32([127 * 2.0**-7]), np.float32([0.0]), 1.0, **PAPER))
    assert clustered.orders.tolist() == [4]  # 127 has seven ones: the radius must grow as well
    assert clustered.radius_end > 1


def test_of_equal_centres_the_smallest_and_of_equal_weights_the_first() -> None:
    mu, sigma = torch.tensor([0.75, -0.75, 0.75, -0.75]), torch.full((4,), 1e-3)
    clustered = cluster_round(mu, sigma, fraction=0.25, **PAPER)
    assert clustered.values.tolist() == [-0.75]
    assert clustered.cluster_of_weight.tolist() == [-1, 0, -1, -1]


def test_negative_sigma_counts_as_the_floor() -> None:
    mu, sigma = realistic(500)
    negative = cluster_round(mu, torch.where(sigma > 0.002, sigma, -sigma), fraction=0.9, **PAPER)
    floored = cluster_round(mu, torch.where(sigma > 0.002, sigma, 2.0**-20), fraction=0.9, **PAPER)
    assert torch.equal(negative.cluster_of_weight, floored.cluster_of_weight)


def test_same_result_for_any_number_of_threads() -> None:
    mu, sigma = realistic(100_000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = cluster_round(mu, sigma, fraction=0.9, **PAPER)
        torch.set_num_threads(2)
        two = cluster_round(mu, sigma, fraction=0.9, **PAPER)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.cluster_of_weight, two.cluster_of_weight)


def test_clusters_account_for_every_fixed_weight() -> None:
    mu, sigma = realistic(5000)
    clustered = cluster_round(mu, sigma, fraction=0.7, **PAPER)
    fixed = clustered.cluster_of_weight >= 0
    assert torch.equal(clustered.fixed, fixed)
    assert torch.bincount(clustered.cluster_of_weight[fixed]).tolist() == clustered.counts.tolist()
    assert clustered.counts.sum() == 3500
    assert clustered.values.dtype == np.float64
    assert clustered.counts.dtype == clustered.orders.dtype == np.int64
    assert clustered.cluster_of_weight.dtype == torch.int32
    np.testing.assert_array_equal(clustered.orders, [bin(abs(int(v * 2**7))).count("1") for v in clustered.values])
    np.testing.assert_array_equal(clustered.orders, value_orders(clustered.values.astype(np.float32)))


def test_codebook_equals_the_values_in_the_weights() -> None:
    mu, sigma = realistic(5000)
    clustered = cluster_round(mu, sigma, fraction=0.8, **PAPER)
    clustered.apply_(mu, sigma, "std_mu")
    written = Codebook.of(mu[clustered.fixed])
    np.testing.assert_array_equal(clustered.codebook.values, written.values)
    np.testing.assert_array_equal(clustered.codebook.counts, written.counts)


def test_free_keeps_earlier_weights_and_counts_them() -> None:
    mu, sigma = realistic(5000)
    cluster_round(mu, sigma, fraction=0.4, **PAPER).apply_(mu, sigma, "std_mu")
    fixed = cluster_round(mu, sigma, fraction=0.4, **PAPER).fixed
    before = mu.clone(), sigma.clone()
    clustered = cluster_round(mu, sigma, fraction=0.6, fixed=fixed, recluster="free", **PAPER)
    clustered.apply_(mu, sigma, "std_mu")
    assert torch.equal(mu[fixed], before[0][fixed])
    assert torch.equal(sigma[fixed], before[1][fixed])
    assert (clustered.cluster_of_weight[fixed] == -2).all()
    assert int(clustered.fixed.sum()) == 3000
    assert clustered.counts.sum() == 1000
    written = Codebook.of(mu[clustered.fixed])
    np.testing.assert_array_equal(clustered.codebook.values, written.values)
    np.testing.assert_array_equal(clustered.codebook.counts, written.counts)


def test_free_with_the_target_already_met_does_nothing() -> None:
    mu, sigma = realistic(100)
    fixed = torch.arange(100) < 50
    clustered = cluster_round(mu, sigma, fraction=0.3, fixed=fixed, recluster="free", **PAPER)
    assert len(clustered.values) == 0
    assert torch.equal(clustered.fixed, fixed)


def test_all_ignores_which_weights_were_fixed() -> None:
    mu, sigma = realistic(1000)
    with_mask = cluster_round(mu, sigma, fraction=0.5, fixed=mu > 0, recluster="all", **PAPER)
    assert torch.equal(with_mask.cluster_of_weight, cluster_round(mu, sigma, fraction=0.5, **PAPER).cluster_of_weight)


def test_fixed_set_has_the_target_size_at_fractions_that_round() -> None:
    mu, sigma = realistic(997)
    for fraction in (1e-9, 0.07, 0.1, 1 / 3, 0.999, 1.0):
        slow = slow_cluster_round(mu.numpy(), sigma.numpy(), fraction=fraction, **PAPER)
        clustered = cluster_round(mu, sigma, fraction=fraction, **PAPER)
        assert clustered.counts.sum() == slow.counts.sum() == int(np.ceil(997 * fraction))


def test_inputs_are_left_alone_until_applied() -> None:
    mu, sigma = realistic(1000)
    before = mu.clone(), sigma.clone()
    cluster(Case(mu.numpy(), sigma.numpy(), 0.5, **PAPER))
    assert torch.equal(mu, before[0])
    assert torch.equal(sigma, before[1])


def test_parameters_that_require_a_gradient_are_welcome() -> None:
    mu, sigma = (torch.nn.Parameter(tensor) for tensor in realistic(1000))
    cluster_round(mu, sigma, fraction=1.0, **PAPER).apply_(mu, sigma, "std_mu")
    assert len(mu.unique()) < 200


@pytest.mark.slow
def test_25_million_weights() -> None:
    mu, sigma = realistic(25_000_000)
    clustered = cluster_round(mu, sigma, fraction=0.95, **PAPER)
    fixed = clustered.cluster_of_weight >= 0
    assert int(fixed.sum()) == clustered.counts.sum() == 23_750_000
    assert torch.bincount(clustered.cluster_of_weight[fixed]).tolist() == clustered.counts.tolist()
    centre = torch.from_numpy(clustered.values)[clustered.cluster_of_weight[fixed].long()]
    distance = (centre - mu[fixed]).abs_() / sigma[fixed].clamp(min=2.0**-20)
    by_zero_rule = (centre == 0) & (mu[fixed].abs() < 2.0**-7)
    assert bool(((distance <= clustered.radius_end) | by_zero_rule).all())
