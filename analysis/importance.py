"""Which hyperparameter moves which objective, from the recorded trials, with a check of how far that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.feasible import FINISHED
from analysis.metrics import Array, scaled

FEWEST_TRIALS = 15
MOST_TRIALS = 1000
"""Most trials that are used; if there are more, this many are taken at even steps."""
NUM_FOLDS = 3
NUM_SHUFFLES = 3
NUM_TREES = 30


@dataclass(frozen=True)
class Importance:
    """How much of an objective's order a forest explains on trials it has not seen, and by which fields it does so."""

    objective: str
    num_trials: int
    explained: float
    """Mean R^2 on the ranks of held-out trials; at 0 or below, `fields` mean nothing."""
    fields: list[tuple[str, float, float]]
    """Field, mean loss of R^2 when its column is shuffled, standard deviation over folds; the largest loss first."""


def varied_fields(trials: pd.DataFrame) -> list[str]:
    """The dotted fields of the configuration that differ between trials."""
    dotted = [name for name in trials.columns if "." in name]
    return [name for name in dotted if trials[name].nunique(dropna=False) > 1]


def importance(trials: pd.DataFrame, objective: str) -> Importance | None:
    """Measure permutation importance (Breiman 2001) on held-out trials, by a forest on the objective's ranks.

    It uses ranks, because otherwise a few ruined networks would make up most of the variance. It uses trials with a
    result, feasible or not, and returns None if there are fewer than 15 or nothing varies. Correlated fields share
    their importance. The trees are extremely randomised (Geurts, Ernst and Wehenkel 2006): they are as good as those of
    a random forest here, and take two thirds of the time.
    """
    placed = scaled(objective, trials[objective].to_numpy(np.float64))
    usable = trials[trials["state"].isin(FINISHED).to_numpy(bool) & np.isfinite(placed)]
    usable = usable.iloc[:: -(-len(usable) // MOST_TRIALS) or 1]
    fields = varied_fields(usable)
    if len(usable) < FEWEST_TRIALS or not fields or usable[objective].nunique() < 2:
        return None
    features = np.column_stack([_as_numbers(usable[name]) for name in fields])
    ranks = usable[objective].rank(pct=True).to_numpy(np.float64)
    explained, losses = _shuffled_losses(features, np.asarray(ranks, dtype=np.float64))
    means, deviations = losses.mean(axis=0), losses.std(axis=0, ddof=1)
    order = np.argsort(-means, kind="stable")
    rows = [(fields[index], float(means[index]), float(deviations[index])) for index in order]
    return Importance(objective, len(usable), float(explained.mean()), rows)


def _shuffled_losses(features: Array, target: Array) -> tuple[Array, Array]:
    """Return R^2 of each fold `(NUM_FOLDS,)`, and its loss when a column is shuffled `(NUM_FOLDS, num_fields)`."""
    from sklearn.ensemble import ExtraTreesRegressor  # takes a second to import
    from sklearn.model_selection import KFold

    generator = np.random.default_rng(0)
    num_fields = features.shape[1]
    explained, losses = [], []
    for fit, held_out in KFold(NUM_FOLDS, shuffle=True, random_state=0).split(features):
        forest = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=2, random_state=0).fit(features[fit], target[fit])
        tables = [features[held_out]]
        for column in np.repeat(np.arange(num_fields), NUM_SHUFFLES):
            tables.append(features[held_out].copy())
            generator.shuffle(tables[-1][:, column])
        predicted = forest.predict(np.concatenate(tables)).reshape(len(tables), -1)  # at once: a call costs 20 ms
        whole, *shuffled = _explained(target[held_out], predicted)
        explained.append(whole)
        losses.append(whole - np.reshape(shuffled, (num_fields, NUM_SHUFFLES)).mean(axis=1))
    return np.array(explained), np.array(losses)


def _explained(target: Array, predicted: Array) -> Array:
    """Return R^2 of each row of predictions `(num_rows, num_trials)`; 0 if the target is constant."""
    spread = ((target - target.mean()) ** 2).sum()
    missed = ((target - predicted) ** 2).sum(axis=1)
    return np.asarray(1 - missed / spread if spread > 0 else np.zeros(len(missed)), dtype=np.float64)


def _as_numbers(column: pd.Series[str]) -> Array:
    """Return numbers as they are, anything else by its place in the alphabet; missing ones get a number below all."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().sum() > column.isna().sum():
        codes = column.astype("str").astype("category").cat.codes
        return np.asarray(codes, dtype=np.float64)
    values = numbers.to_numpy(np.float64)
    lowest = np.nanmin(values) if np.isfinite(values).any() else 0.0
    return np.where(np.isnan(values), lowest - 1, values)
