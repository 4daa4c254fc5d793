"""The cut of a round's last cluster: which weights are left out when the centre reaches more than are needed."""

from __future__ import annotations

import torch
from torch import Tensor

from pwfn.methods.pwfn.clustering.intervals import Weights
from pwfn.parameters import ranked


def furthest(weights: Weights, centre: int, *, num: int, b: int, zero_rule: bool) -> Tensor:
    """Find the `num` weights that are furthest from a centre; among equally far ones those with the highest index.

    Args:
        weights: all weights that the centre reached.
        centre: a value in units of 2^-b.
        num: number of weights to find, from 1 to all but one.
        b: a unit is 2^-b.
        zero_rule: whether weights with |mu| < 2^-b are at distance zero from the value zero.

    Returns:
        Their indices among all weights, integers `(num,)`.
    """
    distance = _distances(weights, centre, b=b, zero_rule=zero_rule)
    return weights.places(slice(0, len(weights)), largest(distance, num))


def largest(distance: Tensor, num: int) -> Tensor:
    """Indices of the `num` largest distances; among equal ones those with the highest index.

    `distance` is `(num_weights,)`, and `num` is less than the number of weights.
    """
    edge = ranked(distance)(len(distance) - num - 1)  # the largest distance that is left
    beyond = (distance > edge).nonzero().squeeze(1)
    on_edge = (distance == edge).nonzero().squeeze(1)
    return torch.cat([beyond, on_edge[len(on_edge) + len(beyond) - num :]])


def _distances(weights: Weights, centre: int, *, b: int, zero_rule: bool) -> Tensor:
    """|c - x| / s of each weight, float64 `(num_weights,)`."""
    distance = torch.empty(len(weights), dtype=torch.float64, device=weights.all_mu.device)
    for chunk in weights.chunks():
        x = weights.position(chunk, b)
        distance[chunk] = (centre - x).abs_().div_(weights.scale(chunk))
        if zero_rule and centre == 0:
            distance[chunk].masked_fill_(x.abs_() < 1, 0)
    return distance
