"""Which value each weight takes, and what its gradient says to that value."""

from __future__ import annotations

import torch
from torch import Tensor

from pwfn.methods.qat.ranks import PIECE, ranks_
from pwfn.parameters import in_pieces

COLUMNS = 1024
"""On a GPU sums go to as many places per value first: many threads that add to one place wait for each other."""


def edges_between(values: Tensor, penalties: Tensor | None = None) -> Tensor:
    """Where the weights of one value end and those of the next begin.

    Without penalties these are the middles. With them a weight w takes the value with the least (w - c)^2 + penalty:
    the cells are intervals again, and one that others cover on both sides is empty (its two edges are equal).

    Args:
        values: ascending, `(num_values,)`.
        penalties: `(num_values,)`, one of each value.

    Returns:
        Ascending, `(num_values - 1,)`. Weights above edge j belong to values after j; one on an edge to those before.
    """
    if penalties is None or len(values) == 1:
        return (values[:-1] + values[1:]) / 2
    # Where a pair of values costs the same; only a value that is there twice has no distance from itself.
    gap = (values[:, None] - values).clamp(min=torch.finfo(values.dtype).tiny)
    crossing = (values[:, None] + values) / 2 + (penalties[:, None] - penalties) / (2 * gap)
    is_after = torch.ones_like(crossing, dtype=torch.bool).tril(-1)
    begin = crossing.where(is_after, -torch.inf).amax(dim=1)
    end = crossing.T.where(is_after.T, torch.inf).amin(dim=1)
    begin = begin.where(begin < end, torch.inf)
    return begin.flip(0).cummin(dim=0).values.flip(0)[1:]


@torch.no_grad()
def assign_(places: Tensor, weights: Tensor, edges: Tensor) -> None:
    """Write the rank of each weight's value: how many edges lie below the weight.

    Args:
        places: of a whole type that holds the ranks, `(num_weights,)`; overwritten.
        weights: `(num_weights,)`.
        edges: ascending, `(num_values - 1,)`; infinite ones are allowed.
    """
    if weights.device.type == "cpu":
        ranks_(places, weights, edges)
    else:
        places.copy_(torch.bucketize(weights, edges, out_int32=True))


@torch.no_grad()
def assign_by_importance_(
    places: Tensor, weights: Tensor, importance: Tensor, values: Tensor, penalties: Tensor
) -> None:
    """Write the rank of the value with the least importance * (w - c)^2 + penalty, the first among equals.

    Args:
        places: of a whole type that holds the ranks, `(num_weights,)`; overwritten.
        weights: `(num_weights,)`.
        importance: positive, `(num_weights,)`.
        values: ascending, `(num_values,)`.
        penalties: `(num_values,)`.
    """
    for place, weight, factor in in_pieces(places, weights, importance):
        least = torch.full_like(weight, torch.inf)
        place.zero_()
        for index, (value, penalty) in enumerate(zip(values.unbind(), penalties.unbind(), strict=True)):
            cost = (weight - value).square_().mul_(factor).add_(penalty)
            place.masked_fill_(cost < least, index)
            torch.minimum(least, cost, out=least)


@torch.no_grad()
def show_(shown: Tensor, places: Tensor, values: Tensor) -> None:
    """Write each weight's value, `(num_weights,)`, for the ranks of the ascending `values`."""
    size = PIECE if shown.device.type == "cpu" else len(shown)
    for piece, place in zip(torch.split(shown, size), torch.split(places, size), strict=True):
        torch.index_select(values, 0, place.int(), out=piece)


@torch.no_grad()
def sums_by_value(places: Tensor, terms: Tensor, num_values: int) -> Tensor:
    """Add up the terms `(num_weights,)` of the weights of each value, `(num_values,)`, without waiting for a GPU."""
    if terms.device.type == "cpu":
        return torch.bincount(places, weights=terms, minlength=num_values).to(terms.dtype)
    column = torch.arange(len(terms), device=terms.device, dtype=torch.int32).remainder_(COLUMNS)
    sums = terms.new_zeros(num_values * COLUMNS)
    return sums.index_add_(0, column.add_(places, alpha=COLUMNS), terms).view(num_values, COLUMNS).sum(dim=1)


@torch.no_grad()
def counts_by_value(places: Tensor, num_values: int) -> Tensor:
    """Count the weights of each value, int64 `(num_values,)`, without waiting for a GPU."""
    if places.device.type == "cpu":
        return torch.bincount(places, minlength=num_values)
    return torch.stack([(places == index).sum() for index in range(num_values)])
