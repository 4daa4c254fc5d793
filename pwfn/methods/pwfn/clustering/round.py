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
from pwfn.methods.pwfn.clustering.cut import furthest
from pwfn.methods.pwfn.clustering.greedy import Choice, choose_centres, group_codes
from pwfn.methods.pwfn.clustering.intervals import Weights, interval_codes
from pwfn.methods.pwfn.clustering.nearest import fix_to_nearest_
from pwfn.methods.pwfn.clustering.sigma_join import check_sigma_join, join_sigma_
from pwfn.methods.pwfn.clustering.steps import FREE, KEPT, DoubleArray, look_up, means, step_table, write_

Growth = Literal["alternate", "radius_first", "nearest"]

WIDENING = 8
"""With `radius_first` the radius may be this many times the first one before a second order is admitted."""


@dataclass(frozen=True, eq=False)
class ClusterRound:
    """What one round decided; no weight moves before `apply_`.

    A step is one centre chosen once. The same value may be chosen again in a later stage of the round, or as the
    nearest one: that is another step, with its own weights and its own sigma.
    """

    values: DoubleArray
    """Where each step fixes its weights, float64 `(num_steps,)`, in the order chosen; zero is +0."""
    counts: IntArray
    """How many weights each step fixes, int64 `(num_steps,)`, all positive."""
    step_of_weight: Tensor
    """The step that fixes each weight, int32 `(num_weights,)`; -1: still free; -2: fixed before and left there."""
    radius_end: float
    """Radius at the end of the round, in sigmas; infinite for `nearest_round`."""
    kept: Tensor
    """mu of the weights marked -2, float32."""

    @property
    def orders(self) -> IntArray:
        """Powers of two in each step's value, int64 `(num_steps,)`; 0 for zero."""
        return value_orders(self.values.astype(np.float32))

    @property
    def fixed(self) -> Tensor:
        """Which weights are fixed after this round, bool `(num_weights,)`."""
        return self.step_of_weight != FREE

    @cached_property
    def codebook(self) -> Codebook:
        """Values and counts of all weights that are fixed after this round, so of those fixed before as well."""
        before = Codebook.of(self.kept)
        return Codebook.merge(
            np.concatenate([before.values, self.values]), np.concatenate([before.counts, self.counts])
        )

    @torch.no_grad()
    def at_means(self, mu: Tensor) -> ClusterRound:
        """Decide the same, but fix the weights of each value to their mean rather than to a sum of powers of two.

        The steps of one value move together, so there are as many values as before, or fewer where two means are equal
        as float32. Zero stays zero. Where weights fixed before have kept a value, the new ones join them.

        Args:
            mu: float32 `(num_weights,)`. Weights fixed before may be where an earlier round's means put them, although
                they were clustered where that round had chosen them; those of one choice are at one place.
        """
        values, steps = np.unique(self.values, return_inverse=True)
        step, centre = self.step_of_weight, step_table(self.values, mu.device)
        shift = means(lambda chunk: mu[chunk] - look_up(centre, step[chunk]), step, self.counts)
        size = np.bincount(steps, self.counts, len(values))
        moved = values + np.bincount(steps, self.counts * shift, len(values)) / size
        kept = mu[step == KEPT]
        stays = {0.0: 0.0} | _now(self.kept, kept)
        found = [stays.get(value, mean) for value, mean in zip(values.tolist(), moved.tolist(), strict=True)]
        return replace(self, values=np.array(found, np.float32)[steps].astype(np.float64) + 0.0, kept=kept)

    @torch.no_grad()
    def apply_(self, mu: Tensor, sigma: Tensor, sigma_join: str) -> None:
        """Move the newly fixed weights to their values and join their sigmas; no other weight changes a bit.

        Args:
            mu: float32 `(num_weights,)`, as it was clustered; overwritten.
            sigma: likewise.
            sigma_join: one of `pwfn.methods.pwfn.clustering.sigma_join.SIGMA_JOINS`.

        Raises:
            UserError: an unknown name, or tensors of another layout than those clustered.
        """
        check_sigma_join(sigma_join)
        check_per_weight("mu", mu, torch.float32, like=self.step_of_weight)
        check_per_weight("sigma", sigma, torch.float32, like=self.step_of_weight)
        join_sigma_(sigma_join, mu, sigma, self.step_of_weight, self.values, self.counts)
        self.move_(mu)

    @torch.no_grad()
    def move_(self, mu: Tensor) -> None:
        """Move the newly fixed weights to their values."""
        write_(mu, self.step_of_weight, self.values)


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
    """Choose the values that ceil(N fraction) of N weights share, each moving no further than its sigma allows.

    Of equally good centres the smallest is chosen; of equally near weights the last centre takes the first.

    Args:
        mu: float32 `(num_weights,)`. All zero gives the one value zero; no weights give no steps.
        sigma: float32 `(num_weights,)`; counts as 2^-20 where it is smaller, negative ones included.
        fraction: share of all weights that is to be fixed after this round, in (0, 1].
        radius: k, how many sigmas a weight may move at first.
        radius_growth: factor by which k grows when nothing is left within reach.
        b: the smallest positive value is 2^-b.
        zero_rule: weights with |mu| < 2^-b are at distance zero from the value zero.
        max_order: most powers of two in one value.
        fixed: bool `(num_weights,)`, the weights fixed before; `recluster="all"` ignores it.
        recluster: `all` assigns every weight anew, as the paper's code does; `free` leaves those fixed before where
            they are and chooses the rest of the target among the others.
        growth: what happens when nothing is left within reach. `alternate`: order and radius grow in turn (the paper).
            `radius_first`: the radius grows as long as it stays within 8 times the first one, then the order up to
            `max_order`, then the radius again. `nearest`: the order grows alone; weights that nothing of `max_order`
            reaches go to the nearest value that this round has chosen or that `recluster="free"` has kept, those with
            the least |c - mu| / sigma first, on the midpoint of two values to the smaller. Where there is no value yet,
            the radius grows until there is one.

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
    step_of_weight, free = _start(mu, sigma, before)
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
        choice = choose_centres(classes, num_candidates=len(lattice), need=need, first_step=len(centres))
        free = _assign_(step_of_weight, free, codes, choice)
        centres += lattice[choice.centre].tolist()
        counts += choice.count.tolist()
        need -= int(choice.count.sum())
    if need < 0:
        counts[-1] += need
        last = Weights(mu, sigma, find(step_of_weight, len(centres) - 1))
        step_of_weight[furthest(last, centres[-1], num=-need, b=b, zero_rule=zero_rule)] = FREE
    values = np.array(centres, dtype=np.float64) / 2.0**b
    if need > 0:
        known = np.unique(np.concatenate([values, Codebook.of(kept).values]))
        nearest, sizes = fix_to_nearest_(step_of_weight, free, known, num=need, first_step=len(centres))
        values = np.concatenate([values, nearest])
        counts += sizes.tolist()
    return ClusterRound(values, np.array(counts, dtype=np.int64), step_of_weight, float(radius), kept)


@torch.no_grad()
def nearest_round(mu: Tensor, sigma: Tensor, values: DoubleArray, *, fraction: float) -> ClusterRound:
    """Fix ceil(N fraction) of N weights to the nearest of given values, those with the least |c - mu| / sigma first.

    Of equally near weights the first is fixed; on the midpoint of two values the smaller is the nearest.

    Args:
        mu: float32 `(num_weights,)`, at least one.
        sigma: likewise; counts as 2^-20 where it is smaller.
        values: float64 `(num_values,)`, ascending, at least one.
        fraction: share of all weights that is fixed after this round, in (0, 1].

    Raises:
        UserError, DivergedWeightsError: as `cluster_round`.
    """
    check_weights(mu, sigma, None, b=0)
    step_of_weight, free = _start(mu, sigma, None)
    taken, counts = fix_to_nearest_(step_of_weight, free, values, num=ceil(len(mu) * fraction), first_step=0)
    return ClusterRound(taken, counts, step_of_weight, radius_end=inf, kept=mu[:0])


def _now(chosen: Tensor, mu: Tensor) -> dict[float, float]:
    """Where the weights of each chosen value are now; both `(num_weights,)`."""
    values, place = torch.unique(chosen, return_inverse=True)
    now = torch.empty_like(values)
    now[place] = mu
    return dict(zip(values.tolist(), now.tolist(), strict=True))


def _start(mu: Tensor, sigma: Tensor, before: Tensor | None) -> tuple[Tensor, Weights]:
    """Mark the weights fixed `before`, if there are, as kept and the others as free; return the marks and the free."""
    step_of_weight = torch.full_like(mu, FREE, dtype=torch.int32)
    if before is None:
        return step_of_weight, Weights(mu, sigma)
    return step_of_weight.masked_fill_(before, KEPT), Weights(mu, sigma, find(before, False))


def _assign_(step_of_weight: Tensor, free: Weights, codes: Tensor, choice: Choice) -> Weights:
    """Write the step of each free weight and return those that stay free; their index takes the memory of `codes`."""
    step_of_code = torch.from_numpy(choice.step_of_code).to(codes.device)
    num_left = 0
    for chunk in free.chunks():
        step = step_of_code.index_select(0, codes[chunk])
        free.write_(step_of_weight, chunk, step)
        places = free.places(chunk, find_in_chunk(step, FREE))
        codes[num_left : num_left + len(places)] = places  # never beyond the codes already read
        num_left += len(places)
    return Weights(free.all_mu, free.all_sigma, codes[:num_left])


def _stages(growth: Growth, radius: float, factor: float, max_order: int) -> Iterator[tuple[int, float]]:
    """Order and radius of each stage: one of them grows after each, in the end the radius alone."""
    order, widest = 1, WIDENING * radius
    for turn in count():
        yield order, radius
        admits = {"alternate": turn % 2 == 0, "radius_first": radius * factor > widest, "nearest": True}[growth]
        if admits and order < max_order:
            order += 1
        else:
            radius *= factor
