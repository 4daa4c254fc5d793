"""Every input that a round refuses, by its message."""

import math
from typing import Any

import pytest
import torch

from pwfn.errors import DivergedWeightsError, TrialError, UserError
from pwfn.methods.pwfn.clustering import cluster_round

GOOD: dict[str, Any] = {"fraction": 0.5, "radius": 1.0, "radius_growth": 2.0, "b": 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\], but got 0.0"),
        ({"fraction": 1.01}, r"fraction must be in \(0, 1\], but got 1.01"),
        ({"fraction": math.nan}, r"fraction must be in \(0, 1\], but got nan"),
        ({"radius": 0.0}, "radius must be positive and finite, but got 0.0"),
        ({"radius": -1.0}, "radius must be positive and finite, but got -1.0"),
        ({"radius": math.inf}, "radius must be positive and finite, but got inf"),
        ({"radius_growth": 1.0}, "radius_growth must be finite and above 1, or a round never ends, but got 1.0"),
        ({"radius_growth": math.inf}, "radius_growth must be finite and above 1, .* but got inf"),
        ({"b": 0}, "b must be in 1..20, but got 0"),
        ({"b": 21}, "b must be in 1..20, but got 21"),
        ({"max_order": 0}, "max_order must be in 1..8, but got 0"),
        ({"max_order": 9}, "max_order must be in 1..8, but got 9"),
        ({"recluster": "none"}, "recluster must be all or free, but got none"),
        ({"growth": "order"}, "growth must be one of alternate, radius_first, nearest, but got order"),
    ],
)
def test_options_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster_round(torch.zeros(3), torch.zeros(3), **(GOOD | change))


@pytest.mark.parametrize(
    ("mu", "sigma", "fixed", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(3), None, r"mu must be a flat tensor of torch.float32, but .* \(3, 1\) on cpu"),
        (
            torch.zeros(3).double(),
            torch.zeros(3),
            None,
            "mu must be a flat tensor of torch.float32, but is torch.float64",
        ),
        (
            torch.zeros(3),
            torch.zeros(3).half(),
            None,
            "sigma must be a flat tensor of torch.float32, but is torch.float16",
        ),
        (torch.zeros(3), torch.zeros(4), None, r"sigma must have shape \(3,\) on cpu, but .* \(4,\) on cpu"),
        (torch.zeros(3), torch.zeros(3, device="meta"), None, r"sigma must have shape \(3,\) on cpu, but .* on meta"),
        (
            torch.zeros(3),
            torch.zeros(3),
            torch.zeros(3),
            "fixed must be a flat tensor of torch.bool, but is torch.float32",
        ),
        (torch.zeros(3), torch.zeros(3), torch.zeros(2).bool(), r"fixed must have shape \(3,\) on cpu, but .* \(2,\)"),
        (
            torch.empty(2**31, device="meta"),
            torch.empty(2**31, device="meta"),
            None,
            "mu has 2147483648 weights; .* most",
        ),
    ],
)
def test_tensors_that_do_not_belong_together(
    mu: torch.Tensor, sigma: torch.Tensor, fixed: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        cluster_round(mu, sigma, fixed=fixed, **GOOD)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["mu", "sigma"])
def test_weights_that_are_no_numbers_fail_the_trial_only(name: str, bad: float) -> None:
    tensors = {"mu": torch.linspace(-1, 1, 9), "sigma": torch.full((9,), 0.01)}
    tensors[name][4] = bad
    with pytest.raises(DivergedWeightsError, match=f"{name} must be finite.*{bad}"):
        cluster_round(**tensors, **GOOD)


def test_weights_beyond_the_lattice_fail_the_trial_only() -> None:
    cluster_round(torch.tensor([2.0**40]), torch.tensor([1.0]), **GOOD)
    with pytest.raises(
        DivergedWeightsError, match=r"mu must be finite and within 2.19902e.12, but goes from -3e.12 to 0.5"
    ):
        cluster_round(torch.tensor([0.5, -3e12]), torch.tensor([1.0, 1.0]), **GOOD)
    assert issubclass(DivergedWeightsError, TrialError)
    assert DivergedWeightsError.failure_class == "nan"
