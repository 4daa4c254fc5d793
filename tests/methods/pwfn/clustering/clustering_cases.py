"""Random rounds for comparing the fast clustering with the slow one, and the comparison itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from slow_clustering import slow_candidates, slow_cluster_round

from pwfn.methods.pwfn.clustering import ClusterRound, cluster_round

SMALLEST_SIGMA = np.float32(2.0**-20)


@dataclass(frozen=True)
class Case:
    mu: npt.NDArray[np.float32]
    sigma: npt.NDArray[np.float32]
    fraction: float
    radius: float
    radius_growth: float
    b: int
    zero_rule: bool = True
    max_order: int = 4
    fixed: npt.NDArray[np.bool_] | None = field(default=None)
    growth: str = "alternate"

    def options(self) -> dict[str, Any]:
        names = ("fraction", "radius", "radius_growth", "b", "zero_rule", "max_order", "growth")
        return {name: getattr(self, name) for name in names}


def cluster(case: Case) -> ClusterRound:
    """The fast round; a mask of fixed weights means `recluster="free"`."""
    fixed = None if case.fixed is None else torch.from_numpy(case.fixed)
    mode = "all" if fixed is None else "free"
    mu, sigma = torch.from_numpy(case.mu), torch.from_numpy(case.sigma)
    return cluster_round(mu, sigma, **case.options(), fixed=fixed, recluster=mode)


def assert_equals_slow(case: Case) -> ClusterRound:
    """Every number and the cluster of every weight must be the same to the last bit."""
    fast = cluster(case)
    slow = slow_cluster_round(case.mu, case.sigma, **case.options(), fixed=case.fixed)
    expected = slow.cluster_of_weight
    if case.fixed is not None:
        expected = np.where(case.fixed, -2, expected)
    np.testing.assert_array_equal(fast.values, slow.values)
    np.testing.assert_array_equal(fast.counts, slow.counts)
    np.testing.assert_array_equal(fast.cluster_of_weight.numpy(), expected)
    assert fast.radius_end == slow.radius_end
    return fast


def random_case(seed: int) -> Case:
    """Weights and sigmas of many scales, ties, lattice points, halves between them, zeros of both signs."""
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 200))
    b = int(rng.integers(2, 9))
    kinds = [
        rng.normal(0, rng.choice([0.05, 0.3, 2]), num),
        rng.integers(-40, 41, num) * 2.0**-b,
        (rng.integers(-40, 41, num) + 0.5) * 2.0**-b,
        rng.choice([0.0, -0.0, 1e-30, -1e-42, 2.0**-b, -(2.0**-b), 1, -4], num),
        np.full(num, rng.normal()),
    ]
    mu = np.choose(rng.choice(5, num, p=[0.6, 0.15, 0.1, 0.1, 0.05]), kinds).astype(np.float32)
    sigma = np.abs(rng.normal(0, rng.choice([0.001, 0.02, 0.5]), num)).astype(np.float32)
    sigma[rng.random(num) < 0.1] = rng.choice([0, -0.01, 2.0**-20, 2.0**-21])
    return Case(
        mu,
        sigma,
        fraction=float(rng.choice([0.01, 0.2, 0.5, 0.9, 0.99, 1.0])),
        radius=float(rng.choice([0.25, 0.5, 1.0, 1.3, 3.0])),
        radius_growth=float(rng.choice([1.1, 1.5, 2.0, 3.0])),
        b=b,
        zero_rule=bool(rng.random() < 0.7),
        max_order=int(rng.integers(1, 5)),
        fixed=rng.random(num) < rng.random() if rng.random() < 0.3 else None,
    )


def border_case(seed: int) -> Case:
    """A round whose radius is exactly the distance of one of its weights from a candidate, or a last bit away.

    The radius may be reached only after some growth. Weights come in mirrored pairs and repeat, so that several are
    on the border at once.
    """
    rng = np.random.default_rng(seed)
    b = int(rng.integers(2, 8))
    half = rng.normal(0, 0.4, int(rng.integers(2, 30))).astype(np.float32)
    spread = np.abs(rng.normal(0, 0.05, len(half))).astype(np.float32) + np.float32(1e-4)
    mu = np.concatenate([half, -half, half[: len(half) // 2]])
    sigma = np.concatenate([spread, spread, spread[: len(half) // 2]])
    one = int(rng.integers(len(half)))
    centres = slow_candidates(2, float(np.abs(mu).max()), b)
    near = centres[np.argsort(np.abs(centres - mu[one]))[int(rng.integers(min(3, len(centres))))]]
    distance = abs(near - float(mu[one])) / float(max(sigma[one], SMALLEST_SIGMA))
    radius_growth = float(rng.choice([1.5, 2.0, 3.0]))
    radius = max(distance / radius_growth ** int(rng.integers(3)), 1e-3)
    radius = float(rng.choice([np.nextafter(radius, 0), radius, np.nextafter(radius, np.inf)]))
    order = rng.permutation(len(mu))
    return Case(
        mu[order],
        sigma[order],
        fraction=float(rng.choice([0.2, 0.5, 0.8, 1.0])),
        radius=radius,
        radius_growth=radius_growth,
        b=b,
        zero_rule=bool(rng.random() < 0.5),
        fixed=rng.random(len(mu)) < 0.3 if rng.random() < 0.3 else None,
    )
