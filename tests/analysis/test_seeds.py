"""Seeds of one configuration: grouping, spread, attainment, probability, against their definitions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import METHODS, SMALL, Record, configured

import analysis
from analysis.seeds import attainment, front_probability
from analysis.series import Series, configurations, panels

OBJECTIVES = {"val_top1": "maximize", "unique_values": "minimize"}


def loaded(tmp_path: Path, name: str = "digits") -> list[Series]:
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / name))])
    return series


def test_seeds_are_one_point_and_states_without_a_result_stay(record: Record, tmp_path: Path) -> None:
    record("digits", METHODS)
    pwfn, kmeans = loaded(tmp_path)
    assert (pwfn.label, kmeans.label) == ("pwfn", "kmeans")
    assert pwfn.points["trial_ids"].tolist() == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"], ["t7"], ["t8"]]
    first = pwfn.points.iloc[0]
    assert first["num_seeds"] == 3
    assert first["val_top1"] == pytest.approx(0.977)
    assert (first["val_top1_low"], first["val_top1_high"]) == (0.975, 0.98)
    assert first["test_top1"] == pytest.approx(0.972)
    assert kmeans.points["num_seeds"].tolist() == [3]


def test_trials_without_a_configuration_are_never_merged(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    [one] = loaded(tmp_path)
    pd.testing.assert_series_equal(one.points["trial_id"], one.trials["trial_id"])
    assert one.points["num_seeds"].eq(1).all()


def test_other_fields_than_the_seed_tell_configurations_apart(record: Record, tmp_path: Path) -> None:
    rows = [{**configured(b, lr, seed=s), "val_top1": 0.9, "unique_values": 9} for b, lr, s in
            [(3, 0.1, 0), (3, 0.2, 1), (4, 0.1, 2), (3, 0.1, 3)]]  # fmt: skip
    record("digits", rows)
    [one] = loaded(tmp_path)
    assert one.points["trial_ids"].tolist() == [["t0", "t3"], ["t1"], ["t2"]]


def replicated_frame(values: np.ndarray) -> pd.DataFrame:
    """Configurations x seeds x (accuracy, count)."""
    rows = []
    for config, seeds in enumerate(values):
        rows += [
            {"trial_id": f"{config}-{seed}", "val_top1": accuracy, "unique_values": count, "state": "complete",
             **configured(config, seed=seed), "number": 0.0}
            for seed, (accuracy, count) in enumerate(seeds)
        ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["unique_values"] = frame["unique_values"].astype(float)
    for name in ("test_top1", "val_top5", "test_top5", "entropy_bits", "size_bytes", "mean_order", "sparsity"):
        frame[name] = np.nan
    return frame


points = st.tuples(st.floats(0.01, 0.99), st.integers(2, 500))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(points, min_size=4, max_size=4), min_size=1, max_size=4), points)
def test_attainment_is_what_so_many_runs_reach(values: list[list[tuple[float, int]]], goal: tuple[float, int]) -> None:
    trials = replicated_frame(np.array(values))
    found = attainment(trials, configurations(trials), OBJECTIVES)
    assert found is not None
    assert (found.num_runs, found.num_configurations) == (4, len(values))
    reached = [any(seeds[run][0] >= goal[0] and seeds[run][1] <= goal[1] for seeds in values) for run in range(4)]
    for level, corners in found.surfaces.items():
        dominated = any(acc >= goal[0] - 1e-12 and count <= goal[1] * (1 + 1e-9) for acc, count in corners)
        assert dominated == (np.mean(reached) >= level / 100)


def test_probability_of_places_that_are_certain_and_of_a_tie() -> None:
    apart = np.array([[[0.9, 8], [0.91, 8]], [[0.95, 64], [0.96, 64]], [[0.5, 128], [0.4, 128]]])
    trials = replicated_frame(apart)
    assert front_probability(trials, configurations(trials), OBJECTIVES) == {"0-0": 1.0, "1-0": 1.0, "2-0": 0.0}
    close = np.array([[[0.8, 8], [0.9, 8]], [[0.8, 8.0], [0.9, 8]]])
    trials = replicated_frame(close)
    chances = front_probability(trials, configurations(trials), OBJECTIVES)
    # each mean is 0.8, 0.85 or 0.9 with 1/4, 1/2, 1/4: at least as good as the other in 11 of 16 cases
    assert list(chances.values()) == pytest.approx([11 / 16, 11 / 16], abs=0.06)


def test_without_two_replicated_configurations_neither_is_defined(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    [one] = loaded(tmp_path)
    assert attainment(one.trials, one.points, OBJECTIVES) is None
    assert front_probability(one.trials, one.points, OBJECTIVES) == {}
