"""One clustering round: a fraction of all weights is fixed to shared sums of powers of two (PWFN, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from math import ceil, inf
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pwfn.codebook import Codebook, value_orders
from pwfn.methods.pwfn.clustering.candidates import IntArray, candidates
from pwfn.methods.pwfn.clustering.checks import check_options, check_per_weight, check_weights
from pwfn.methods.pwfn.clustering.chunks import find, find_in_chunk
from pwfn.methods.pwfn.clustering.clusters import FREE, KEPT, DoubleArray, cluster_table, look_up, means, write_
from pwfn.methods.pwfn.clustering.cut import furthest
from pwfn.methods.pwfn.clustering.greedy import Choice, choose_centres, group_codes
from pwfn.methods.pwfn.clustering.intervals import Weights, interval_codes
from pwfn.methods.pwfn.clustering.nearest import fix_to_nearest_
from pwfn.methods.pwfn.clustering.sigma_join import check_sigma_join, join_sigma_

Growth = Literal["alternate", "radius_first", "nearest"]

WIDENING = 8
"""With `growth="radius_first"` the radius may grow to this many times the first one before the order grows."""


@dataclass(frozen=True, eq=False)
class ClusterRound:
    """What one round decided; no weight moves before `apply_`.

    A cluster is the set of weights that one choice of a centre fixes. If the same value is chosen again in a later
    stage of the round, or takes weights as the nearest one, that makes another cluster with its own weights and sigma.
    """

    values: DoubleArray
    """The value of each cluster, float64 `(num_clusters,)`, in the order in which they were chosen; zero is +0."""
    counts: IntArray
    """Number of weights of each cluster, int64 `(num_clusters,)`, all positive."""
    cluster_of_weight: Tensor
    """Number of the cluster that fixes each weight, int32 `(num_weights,)`; -1: the weight is still free; -2: it was
    fixed in an earlier round and keeps its value."""
    radius_end: float
    """Radius at the end of the round, in sigmas; infinite for `nearest_round`."""
    kept: Tensor
    """mu of the weights marked -2, float32 `(num_kept,)`."""

    @property
    def orders(self) -> IntArray:
        """Number of powers of two that sum to each cluster's value, int64 `(num_clusters,)`; 0 for zero."""
        return value_orders(self.values.astype(np.float32))

    @property
    def fixed(self) -> Tensor:
        """Which weights are fixed after this round, bool `(num_weights,)`."""
        return self.cluster_of_weight != FREE

    @cached_property
    def codebook(self) -> Codebook:
        """Values and counts of all weights that are fixed after this round, those of earlier rounds included."""
        before = Codebook.of(self.kept)
        return Codebook.merge(
            np.concatenate([before.values, self.values]), np.concatenate([before.counts, self.counts])
        )

    @torch.no_grad()
    def at_means(self, mu: Tensor) -> ClusterRound:
        """Return this round with the same clusters, but with the mean of its weights in the place of each value.

        All clusters that share a value get one mean, so that there are as many values as before, or fewer if two means
        are equal as float32. Zero stays zero. A value that weights kept from an earlier round does not move: it is
        where these weights are in `mu`, and the new weights join them there.

        Args:
            mu: float32 `(num_weights,)`, the weights as they are now. Those fixed before were clustered at the values
                that earlier rounds chose for them, and may since have moved to means; all weights of one chosen value
                must be at one place.
        """
        values, clusters = np.unique(self.values, return_inverse=True)
        cluster, centre = self.cluster_of_weight, cluster_table(self.values, mu.device)
        shift = means(lambda chunk: mu[chunk] - look_up(centre, cluster[chunk]), cluster, self.counts)
        size = np.bincount(clusters, self.counts, len(values))
        moved = values + np.bincount(clusters, self.counts * shift, len(values)) / size
        kept = mu[cluster == KEPT]
        stays = {0.0: 0.0} | _current_values(self.kept, kept)
        found = [stays.get(value, mean) for value, mean in zip(values.tolist(), moved.tolist(), strict=True)]
        return replace(self, values=np.array(found, np.float32)[clusters].astype(np.float64) + 0.0, kept=kept)

    @torch.no_grad()
    def apply_(self, mu: Tensor, sigma: Tensor, sigma_join: str) -> None:
        """Move the newly fixed weights to their values and give them their new sigmas; no other weight changes.

        Args:
            mu: float32 `(num_weights,)`, as it was clustered; overwritten.
            sigma: float32 `(num_weights,)`, as it was clustered; overwritten.
            sigma_join: one of `pwfn.methods.pwfn.clustering.sigma_join.SIGMA_JOINS`.

        Raises:
            UserError: an unknown name, or tensors of another layout than those clustered.
        """
        check_sigma_join(sigma_join)
        check_per_weight("mu", mu, torch.float32, like=self.cluster_of_weight)
        check_per_weight("sigma", sigma, torch.float32, like=self.cluster_of_weight)
        join_sigma_(sigma_join, mu, sigma, self.cluster_of_weight, self.values, self.counts)
        self.move_(mu)

    @torch.no_grad()
    def move_(self, mu: Tensor) -> None:
        """Write the values of the newly fixed weights to `mu`, float32 `(num_weights,)`, in place."""
        write_(mu, self.cluster_of_weight, self.values)


@torch.no_grad()
def cluster_round(
    mu: Tensor,
    sigma: Tensor,
    *,
    fraction: float,
    radius: float,
    radius_growth: float,
    b: int,
    zero_rule: bool = True,
    max_order: int = 4,
    fixed: Tensor | None = None,
    recluster: Literal["all", "free"] = "all",
    growth: Growth = "alternate",
) -> ClusterRound:
    """Choose the values that ceil(fraction N) of N weights share; how far a weight may move depends on its sigma.

    Among centres that reach equally many weights the smallest is chosen. The last centre may reach more weights than
    are needed: it takes the nearest, and among equally near weights those that come first in `mu`.

    Args:
        mu: float32 `(num_weights,)`. If all are zero, zero is the only value; if there are none, there is no cluster.
        sigma: float32 `(num_weights,)`; a sigma below 2^-20, also a negative one, counts as 2^-20.
        fraction: share of all weights that is to be fixed after this round, in (0, 1].
        radius: the paper's k, the number of sigmas that a weight may move at first.
        radius_growth: factor by which the radius grows when no candidate reaches a free weight any more.
        b: the smallest positive value is 2^-b.
        zero_rule: whether weights with |mu| < 2^-b are at distance zero from the value zero.
        max_order: largest order of a value: the number of powers of two that sum to it.
        fixed: bool `(num_weights,)`, the weights that earlier rounds fixed; `recluster="all"` ignores it.
        recluster: `all` assigns every weight anew, as the paper's code does. `free` leaves the weights in `fixed` at
            their values; they count as fixed, and the rest of the ceil(fraction N) is chosen among the others.
        growth: what happens when no candidate reaches a free weight any more. `alternate`: order and radius grow in
            turn (the paper). `radius_first`: the radius grows as long as it stays within 8 times the first one, then
            the order up to `max_order`, then the radius again. `nearest`: only the order grows, up to `max_order`; the
            weights that are still needed then go to the nearest value that this round has chosen or that
            `recluster="free"` has kept. Those with the least |c - mu| / sigma go first, and a weight halfway between
            two values goes to the smaller. If there is no value yet, the radius grows until there is one.

    Raises:
        UserError: an option out of range, or tensors that do not belong together.
        DivergedWeightsError: NaN or infinity in mu or sigma, or mu beyond 2^(48-b).
    """
    check_options(
        fraction=fraction,
        radius=radius,
        radius_growth=radius_growth,
        b=b,
        max_order=max_order,
        recluster=recluster,
        growth=growth,
    )
    check_weights(mu, sigma, fixed, b)
    before = fixed if recluster == "free" else None
    cluster_of_weight, free = _start(mu, sigma, before)
    kept = mu[:0] if before is None else mu[before]
    need = max(ceil(len(mu) * fraction) - len(kept), 0)
    stages = _stages(growth, radius, radius_growth, max_order)
    order = 0
    centres: list[int] = []
    counts: list[int] = []
    while need > 0 and not (growth == "nearest" and order == max_order and (centres or len(kept))):
        order, radius = next(stages)
        lattice = candidates(order, free.largest_magnitude() * 2.0**b)
        # Once a centre is chosen, the zero rule applies to none of the weights that are still free.
        codes = interval_codes(free, lattice, radius=radius, b=b, zero_rule=zero_rule and not centres)
        classes = group_codes(codes, len(lattice) + 1)
        choice = choose_centres(classes, num_candidates=len(lattice), need=need, first_cluster=len(centres))
        free = _assign_(cluster_of_weight, free, codes, choice)
        centres += lattice[choice.centre].tolist()
        counts += choice.count.tolist()
        need -= int(choice.count.sum())
    if need < 0:
        counts[-1] += need
        last = Weights(mu, sigma, find(cluster_of_weight, len(centres) - 1))
        cluster_of_weight[furthest(last, centres[-1], num=-need, b=b, zero_rule=zero_rule)] = FREE
    values = np.array(centres, dtype=np.float64) / 2.0**b
    if need > 0:
        known = np.unique(np.concatenate([values, Codebook.of(kept).values]))
        nearest, sizes = fix_to_nearest_(cluster_of_weight, free, known, num=need, first_cluster=len(centres))
        values = np.concatenate([values, nearest])
        counts += sizes.tolist()
    return ClusterRound(values, np.array(counts, dtype=np.int64), cluster_of_weight, float(radius), kept)


@torch.no_grad()
def nearest_round(mu: Tensor, sigma: Tensor, values: DoubleArray, *, fraction: float) -> ClusterRound:
    """Fix ceil(fraction N) of N weights to the nearest of given values c, those with the least |c - mu| / sigma first.

    Among equally near weights those that come first in `mu` are fixed. A weight halfway between two values goes to the
    smaller.

    Args:
        mu: float32 `(num_weights,)`, at least one weight.
        sigma: float32 `(num_weights,)`; a sigma below 2^-20 counts as 2^-20.
        values: float64 `(num_values,)`, ascending, at least one.
        fraction: share of all weights that is to be fixed, in (0, 1].

    Raises:
        UserError: tensors that do not belong together.
        DivergedWeightsError: NaN or infinity in mu or sigma, or mu beyond 2^48.
    """
    check_weights(mu, sigma, None, b=0)
    cluster_of_weight, free = _start(mu, sigma, None)
    taken, counts = fix_to_nearest_(cluster_of_weight, free, values, num=ceil(len(mu) * fraction), first_cluster=0)
    return ClusterRound(taken, counts, cluster_of_weight, radius_end=inf, kept=mu[:0])


def _current_values(chosen: Tensor, mu: Tensor) -> dict[float, float]:
    """Map each chosen value to where its weights are now; `chosen` and `mu` are `(num_kept,)`."""
    values, place = torch.unique(chosen, return_inverse=True)
    current = torch.empty_like(values)
    current[place] = mu
    return dict(zip(values.tolist(), current.tolist(), strict=True))


def _start(mu: Tensor, sigma: Tensor, before: Tensor | None) -> tuple[Tensor, Weights]:
    """Mark the weights in the mask `before` as KEPT and all others as FREE; return the marks and the free weights."""
    cluster_of_weight = torch.full_like(mu, FREE, dtype=torch.int32)
    if before is None:
        return cluster_of_weight, Weights(mu, sigma)
    return cluster_of_weight.masked_fill_(before, KEPT), Weights(mu, sigma, find(before, False))


def _assign_(cluster_of_weight: Tensor, free: Weights, codes: Tensor, choice: Choice) -> Weights:
    """Write the cluster of each free weight and return the weights that stay free.

    `codes` is overwritten: its memory holds the index of the weights that are returned.
    """
    cluster_of_code = torch.from_numpy(choice.cluster_of_code).to(codes.device)
    num_left = 0
    for chunk in free.chunks():
        cluster = cluster_of_code.index_select(0, codes[chunk])
        free.write_(cluster_of_weight, chunk, cluster)
        places = free.places(chunk, find_in_chunk(cluster, FREE))
        codes[num_left : num_left + len(places)] = places  # overwrites only codes that were already read
        num_left += len(places)
    return Weights(free.all_mu, free.all_sigma, codes[:num_left])


def _stages(growth: Growth, radius: float, factor: float, max_order: int) -> Iterator[tuple[int, float]]:
    """Yield order and radius of each stage; after each stage one of them grows, from `max_order` on only the radius."""
    order, widest = 1, WIDENING * radius
    for turn in count():
        yield order, radius
        admits = {"alternate": turn % 2 == 0, "radius_first": radius * factor > widest, "nearest": True}[growth]
        if admits and order < max_order:
            order += 1
        else:
            radius *= factor
