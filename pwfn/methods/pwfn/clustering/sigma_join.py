"""The new sigma of weights that a round fixed to one value together (PWFN, section 3): the choices of `sigma_join`."""

from __future__ import annotations

from torch import Tensor

from pwfn.errors import UserError
from pwfn.methods.pwfn.clustering.candidates import IntArray
from pwfn.methods.pwfn.clustering.chunks import chunks
from pwfn.methods.pwfn.clustering.clusters import (
    DoubleArray,
    cluster_table,
    look_up,
    root_mean_squares,
    standard_deviations,
    write_,
)

DIVISORS = {"keep_the_same_divide_by_2": 2.0, "keep_the_same_divide_by_10": 10.0}
SIGMA_JOINS = ("std_mu", "mean_sigma", *DIVISORS, "allow_retraining")


def check_sigma_join(name: str) -> None:
    """Check that `name` is one of SIGMA_JOINS.

    Raises:
        UserError: it is not.
    """
    if name not in SIGMA_JOINS:
        raise UserError(f"sigma_join {name!r} does not exist; use one of {', '.join(SIGMA_JOINS)}")


def join_sigma_(name: str, mu: Tensor, sigma: Tensor, cluster: Tensor, values: DoubleArray, counts: IntArray) -> None:
    """Give the weights of each cluster their new sigma, in place.

    Args:
        name: one of SIGMA_JOINS. `std_mu`: population standard deviation of the cluster's mu. `mean_sigma`: root mean
            square of its sigma. `keep_the_same_divide_by_N`: each weight's own sigma / N. `allow_retraining`: no
            change.
        mu: float32 `(num_weights,)`, before the weights move to their values.
        sigma: float32 `(num_weights,)`, overwritten.
        cluster: int32 `(num_weights,)`, number of the cluster that fixes each weight; sigma stays where it is negative.
        values: float64 `(num_clusters,)`, the value to which each cluster fixes its weights.
        counts: int64 `(num_clusters,)`, number of weights of each cluster.
    """
    if name == "std_mu":
        centre = cluster_table(values, mu.device)
        write_(
            sigma,
            cluster,
            standard_deviations(lambda chunk: mu[chunk] - look_up(centre, cluster[chunk]), cluster, counts),
        )
    elif name == "mean_sigma":
        write_(sigma, cluster, root_mean_squares(lambda chunk: sigma[chunk].double(), cluster, counts))
    elif name in DIVISORS:
        for chunk in chunks(len(sigma), sigma.device):
            sigma[chunk] /= 1.0 + (cluster[chunk] >= 0) * (DIVISORS[name] - 1)
