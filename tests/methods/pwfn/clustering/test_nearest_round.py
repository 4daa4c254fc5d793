"""Fixing to values that are given, the nearest weights first."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pwfn.errors import DivergedWeightsError
from pwfn.methods.pwfn.clustering import nearest_round

WEIGHTS = st.lists(st.tuples(st.floats(-4, 4, width=32), st.floats(2.0**-10, 2, width=32)), min_size=1, max_size=20)
VALUES = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=5, unique=True).map(sorted)


@given(WEIGHTS, VALUES, st.floats(0.01, 1))
def test_it_is_its_definition(weights, values, fraction):
    mu, sigma = torch.tensor(weights).unbind(dim=1)
    found = nearest_round(mu, sigma, np.array(values), fraction=fraction)
    distances = np.abs(np.array(values)[:, None] - mu.double().numpy())
    distance = distances.min(axis=0) / sigma.double().numpy()
    chosen = np.argsort(distance, kind="stable")[: int(np.ceil(len(mu) * fraction))]
    assert sorted(np.flatnonzero(found.fixed)) == sorted(chosen)
    clusters = found.cluster_of_weight.numpy()
    assert (np.abs(found.values[clusters[chosen]] - mu.double().numpy()[chosen]) == distances.min(axis=0)[chosen]).all()
    assert found.counts.sum() == len(chosen)
    assert found.codebook.counts.sum() == len(chosen)
    assert (np.bincount(clusters[chosen], minlength=len(found.values)) == found.counts).all()


def test_weights_that_are_no_numbers_are_named():
    with pytest.raises(DivergedWeightsError, match="mu"):
        nearest_round(torch.tensor([0.0, float("nan")]), torch.ones(2), np.zeros(1), fraction=1.0)
