"""The sigma of weights that were just fixed together (PWFN, section 3); the configuration uses the same names."""

from __future__ import annotations

from torch import Tensor

from pwfn.errors import UserError
from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks
from pwfn.methods.pwfn.clustering.steps import (
    DoubleArray,
    look_up,
    root_mean_squares,
    standard_deviations,
    step_table,
    write_,
)

DIVISORS = {"keep_the_same_divide_by_2": 2.0, "keep_the_same_divide_by_10": 10.0}
SIGMA_JOINS = ("std_mu", "mean_sigma", *DIVISORS, "allow_retraining")


def check_sigma_join(name: str) -> None:
    """Raise UserError unless `name` is one of SIGMA_JOINS."""
    if name not in SIGMA_JOINS:
        raise UserError(f"sigma_join {name!r} does not exist; use one of {', '.join(SIGMA_JOINS)}")


def join_sigma_(name: str, mu: Tensor, sigma: Tensor, step: Tensor, values: DoubleArray, counts: IntArray) -> None:
    """Give the weights of each step their new sigma, in place.

    Args:
        name: one of SIGMA_JOINS. `std_mu`: population standard deviation of the step's mu. `mean_sigma`: root mean
            square of its sigma. `keep_the_same_divide_by_N`: each weight's own sigma / N. `allow_retraining`: as it is.
        mu: float32 `(num_weights,)`, before the snap.
        sigma: float32 `(num_weights,)`, overwritten.
        step: int32 `(num_weights,)`, the step that fixes each weight; a negative one leaves its sigma alone.
        values: float64 `(num_steps,)`, where each step fixes its weights.
        counts: int64 `(num_steps,)`, how many they are.
    """
    if name == "std_mu":
        centre = step_table(values, mu.device)
        write_(sigma, step, standard_deviations(lambda chunk: mu[chunk] - look_up(centre, step[chunk]), step, counts))
    elif name == "mean_sigma":
        write_(sigma, step, root_mean_squares(lambda chunk: sigma[chunk].double(), step, counts))
    elif name in DIVISORS:
        for chunk in chunks(len(sigma), sigma.device):
            sigma[chunk] /= 1.0 + (step[chunk] >= 0) * (DIVISORS[name] - 1)
