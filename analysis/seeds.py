"""What several seeds of a configuration tell: attainment surfaces, and how probable a place on the front is."""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd

from analysis.front import Mask, Objectives, minimized_objectives
from analysis.metrics import Array, metric

LEVELS = (25, 50, 75)
"""Per cent of the runs."""
RESAMPLES = 1000
_SEED = 20


@dataclass(frozen=True)
class Attainment:
    """What 25, 50 and 75 % of `num_runs` runs reach or surpass, for two objectives."""

    num_runs: int
    num_configurations: int
    surfaces: dict[int, list[tuple[float, float]]]
    """Maps the per cent to the corners of its staircase, in the metrics' units, by the second objective, best first."""


def replicated(points: pd.DataFrame) -> pd.DataFrame:
    """Select the configurations that have at least two seeds."""
    return points[(points["state"] == "complete") & (points["num_seeds"] >= 2)]


def attainment(trials: pd.DataFrame, points: pd.DataFrame, objectives: Objectives) -> Attainment | None:
    """Compute the attainment surfaces (Grunert da Fonseca, Fonseca and Hall 2001; by moocore) of replicated runs.

    Run r consists of the r-th seed of every replicated configuration; there are as many runs as the configuration with
    the fewest seeds has. Returns None if no configuration has two seeds.
    """
    several = replicated(points)
    if several.empty:
        return None
    num_runs = int(several["num_seeds"].min())
    row = pd.Series(np.arange(len(trials)), index=trials["trial_id"].to_numpy())
    chosen = np.array([row[ids[:num_runs]].to_numpy() for ids in several["trial_ids"]])
    matrix = minimized_objectives(trials, objectives)[chosen.T.ravel()]
    sets = np.repeat(np.arange(num_runs), len(several))  # moocore takes each run's points together
    usable = np.isfinite(matrix).all(axis=1)
    if not usable.any():
        return None
    corners = moocore.eaf(matrix[usable], sets[usable], percentiles=list(LEVELS))
    surfaces = {level: _corners(corners[corners[:, -1] == level, :-1], objectives) for level in LEVELS}
    return Attainment(num_runs, len(several), surfaces)


def front_probability(trials: pd.DataFrame, points: pd.DataFrame, objectives: Objectives) -> dict[str, float]:
    """Estimate how probable each replicated configuration's place on the front of their means is: trial_id -> share.

    By bootstrap (Efron 1979): the seeds of each configuration are drawn again with replacement, as many as there are,
    and the front of the means is found again. Configurations with one seed are left out, since their spread is not
    known. Returns an empty mapping if fewer than two configurations are replicated.
    """
    several = replicated(points)
    if len(several) < 2:
        return {}
    row = pd.Series(np.arange(len(trials)), index=trials["trial_id"].to_numpy())
    matrix = minimized_objectives(trials, objectives)
    generator = np.random.default_rng(_SEED)
    means = np.stack([_resampled(matrix[row[ids].to_numpy()], generator) for ids in several["trial_ids"]], axis=1)
    # A drawn seed that is infeasible takes its configuration off the front.
    usable: Mask = np.asarray(np.isfinite(means).all(axis=2), dtype=np.bool_)
    hits = np.zeros(len(several))
    for sample, there in zip(means, usable, strict=True):
        if there.any():
            hits[there] += moocore.is_nondominated(sample[there], keep_weakly=True)
    return dict(zip(several["trial_id"], (hits / RESAMPLES).tolist(), strict=True))


def _resampled(seeds: Array, generator: np.random.Generator) -> Array:
    """Return means `(RESAMPLES, num_objectives)` over seeds that are drawn with replacement."""
    drawn = generator.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    return np.asarray(seeds[drawn].mean(axis=1), dtype=np.float64)


def _corners(matrix: Array, objectives: Objectives) -> list[tuple[float, float]]:
    """Turn minimised objectives back into the metrics' units, for two objectives in their order."""
    columns = []
    for column, (name, direction) in zip(matrix.T, objectives.items(), strict=True):
        scaled = -column if direction == "maximize" else column
        columns.append(2**scaled if metric(name).log2 else scaled)
    order = np.argsort(matrix[:, 1], kind="stable")
    return [(float(columns[0][index]), float(columns[1][index])) for index in order]
