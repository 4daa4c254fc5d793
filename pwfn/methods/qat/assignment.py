"""The value that each weight takes, and sums over the weights of each value."""

from __future__ import annotations

import torch
from torch import Tensor

from pwfn.fused import fused
from pwfn.methods.qat.ranks import PIECE, ranks_
from pwfn.parameters import in_pieces

COLUMNS = 1024
"""On a GPU the sum of each value is first spread over this many partial sums: threads that add to one number wait for
each other."""


def edges_between(values: Tensor, penalties: Tensor | None = None) -> Tensor:
    """Find the edges between the weights of each value and those of the next.

    Without penalties an edge is halfway between two values. With penalties a weight w takes the value c with the least
    (w - c)^2 + penalty(c). The weights of each value then form an interval too; it is empty, with two equal edges, if
    for every weight some other value costs less.

    Args:
        values: ascending, `(num_values,)`.
        penalties: of each value, `(num_values,)`.

    Returns:
        Ascending, `(num_values - 1,)`. Edge j lies between values j and j + 1. A weight on an edge belongs to the value
        before it.
    """
    if penalties is None or len(values) == 1:
        return (values[:-1] + values[1:]) / 2
    # The weights at which two values cost the same. The clamp avoids 0 / 0 for a value and itself, or its equal.
    gap = (values[:, None] - values).clamp(min=torch.finfo(values.dtype).tiny)
    crossing = (values[:, None] + values) / 2 + (penalties[:, None] - penalties) / (2 * gap)
    is_after = torch.ones_like(crossing, dtype=torch.bool).tril(-1)
    begin = crossing.where(is_after, -torch.inf).amax(dim=1)
    end = crossing.T.where(is_after.T, torch.inf).amin(dim=1)
    begin = begin.where(begin < end, torch.inf)
    return begin.flip(0).cummin(dim=0).values.flip(0)[1:]


@torch.no_grad()
def assign_(places: Tensor, weights: Tensor, edges: Tensor) -> None:
    """Write for each weight the rank of its value, which is the number of edges below the weight.

    Args:
        places: integers of a type that can hold the ranks, `(num_weights,)`; overwritten.
        weights: `(num_weights,)`.
        edges: ascending, `(num_values - 1,)`; they may be infinite.
    """
    if weights.device.type == "cpu":
        ranks_(places, weights, edges)
    else:
        places.copy_(torch.bucketize(weights, edges, out_int32=True))


@torch.no_grad()
def assign_and_show_(places: Tensor, shown: Tensor, weights: Tensor, edges: Tensor, values: Tensor) -> None:
    """Do what `assign_` does, and write each weight's value to `shown` `(num_weights,)`.

    Args:
        places: integers of a type that can hold the ranks, `(num_weights,)`; overwritten.
        shown: `(num_weights,)`; overwritten.
        weights: `(num_weights,)`.
        edges: ascending, `(num_values - 1,)`; they may be infinite.
        values: ascending, `(num_values,)`.
    """
    if weights.device.type == "cpu":
        ranks_(places, weights, edges)
        show_(shown, places, values)
    else:
        _assign_and_show_(places, shown, weights, edges, values)


@fused
def _assign_and_show_(places: Tensor, shown: Tensor, weights: Tensor, edges: Tensor, values: Tensor) -> None:
    ranks = torch.bucketize(weights, edges, out_int32=True)
    places.copy_(ranks)
    shown.copy_(values[ranks])


@torch.no_grad()
def assign_by_importance_(
    places: Tensor, weights: Tensor, importance: Tensor, values: Tensor, penalties: Tensor
) -> None:
    """Write for each weight w the rank of the value c with the least importance(w) (w - c)^2 + penalty(c).

    Among values of equal cost the first is taken.

    Args:
        places: integers of a type that can hold the ranks, `(num_weights,)`; overwritten.
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
    """Write to `shown` `(num_weights,)` the value of each weight, given its rank `places` in the ascending `values`."""
    size = PIECE if shown.device.type == "cpu" else len(shown)
    for piece, place in zip(torch.split(shown, size), torch.split(places, size), strict=True):
        torch.index_select(values, 0, place.int(), out=piece)


@torch.no_grad()
def sums_by_value(places: Tensor, terms: Tensor, num_values: int) -> Tensor:
    """Sum the terms `(num_weights,)` of the weights of each value, `(num_values,)`; the CPU does not wait for a GPU."""
    if terms.device.type == "cpu":
        return torch.bincount(places, weights=terms, minlength=num_values).to(terms.dtype)
    return _sums_by_value(places, terms, num_values)


@fused
def _sums_by_value(places: Tensor, terms: Tensor, num_values: int) -> Tensor:
    column = torch.arange(len(terms), device=terms.device, dtype=torch.int32).remainder_(COLUMNS)
    sums = terms.new_zeros(num_values * COLUMNS)
    return sums.index_add_(0, column.add_(places, alpha=COLUMNS), terms).view(num_values, COLUMNS).sum(dim=1)


@torch.no_grad()
def counts_by_value(places: Tensor, num_values: int) -> Tensor:
    """Count the weights of each value, int64 `(num_values,)`; the CPU does not wait for a GPU."""
    if places.device.type == "cpu":
        return torch.bincount(places, minlength=num_values)
    return torch.stack([(places == index).sum() for index in range(num_values)])
