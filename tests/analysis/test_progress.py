"""Hypervolume over time, the ledger, importance, published rows."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import Record, Rows, configured

import analysis
from analysis.front import hypervolume
from analysis.importance import importance
from analysis.progress import failures, ledger, progress
from analysis.published import published
from analysis.series import Series, panels

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def series(record: Record, tmp_path: Path, rows: Rows) -> Series:
    record("digits", rows)
    [(_, [one])] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    return one


def random_rows(number: int) -> Rows:
    rng = np.random.default_rng(3)
    states = ["complete", "complete", "pruned", "failed"]
    rows: Rows = []
    for _ in range(number):
        state = str(rng.choice(states))
        ended = START + dt.timedelta(seconds=int(rng.integers(10_000)))
        result = {"val_top1": float(rng.random()), "unique_values": int(rng.integers(2, 400))}
        cost = {"wall_seconds": 36.0, "gpu_seconds": 72.0, "lost_seconds": 3.6, "retries": 1}
        cost |= {"train_seconds": 20.0, "data_seconds": 5.0}
        rows.append(
            {"state": state, "started_at": START, "finished_at": ended, **cost} | (result if state != "failed" else {})
        )
    return rows


def test_the_curve_is_the_hypervolume_of_what_had_ended(record: Record, tmp_path: Path) -> None:
    one = series(record, tmp_path, random_rows(40))
    found = progress(one, one.trials)
    ordered = one.trials.sort_values("finished_at", kind="stable")
    every = [hypervolume(ordered.iloc[:count], one.objectives).share for count in range(1, 41)]
    grown = [count for count in range(1, 41) if every[count - 1] > ([0.0, *every][count - 1]) + 1e-12]
    assert [count for count in found.num_trials if count in grown] == grown
    assert found.num_trials[-1] == 40
    assert found.share == pytest.approx([every[count - 1] for count in found.num_trials])
    assert found.gpu_hours == pytest.approx([0.02 * count for count in found.num_trials])


def test_the_ledger_counts_everything(record: Record, tmp_path: Path) -> None:
    rows = random_rows(40)
    spent = ledger(series(record, tmp_path, rows))
    for state in ("complete", "pruned", "failed"):
        number = sum(row["state"] == state for row in rows)
        assert spent[state] == number
        assert spent[f"{state}_gpu_hours"] == pytest.approx(0.02 * number)
    assert (spent["trials"], spent["retries"]) == (40, 40)
    assert (spent["wall_hours"], spent["gpu_hours"], spent["lost_hours"]) == pytest.approx((0.4, 0.8, 0.04))
    assert spent["data_share"] == pytest.approx(0.25)
    assert spent["span_hours"] == pytest.approx(max(row["finished_at"] - START for row in rows).total_seconds() / 3600)


def test_failures_are_counted_with_their_commonest_message(record: Record, tmp_path: Path) -> None:
    def failed(name: str | None, message: str | None) -> dict[str, object]:
        return {"state": "failed", "failure_class": name, "failure_message": message}

    rows = [failed("oom", "no memory"), failed("nan", "a"), failed("nan", "b"), failed("nan", "b"), failed(None, None)]
    assert failures(series(record, tmp_path, rows)) == [
        ("nan", 3, "b", "t2"),
        ("not recorded", 1, "no message", "t4"),
        ("oom", 1, "no memory", "t0"),
    ]


def moved_by_b(number: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    b, lr = rng.integers(3, 9, number), rng.random(number)
    return pd.DataFrame(
        {"val_top1": b / 10 + 0.02 * rng.random(number), "state": "complete", "method.b": b, "training.lr": lr}
    )


def test_importance_finds_what_moves_the_objective_and_not_what_does_not() -> None:
    found = importance(moved_by_b(120), "val_top1")
    assert found is not None
    assert [name for name, _, _ in found.fields] == ["method.b", "training.lr"]
    (_, strong, _), (_, weak, deviation) = found.fields
    assert found.explained > 0.8
    assert strong > 0.8 > 0.1 > weak
    assert deviation < 0.1


def test_importance_admits_that_noise_explains_nothing() -> None:
    trials = moved_by_b(120)
    trials["val_top1"] = np.random.default_rng(1).random(120)
    found = importance(trials, "val_top1")
    assert found is not None
    assert found.explained < 0.1


@pytest.mark.parametrize(
    "trials", [moved_by_b(14), moved_by_b(40).assign(val_top1=0.5), moved_by_b(40).assign(state="pruned")]
)
def test_importance_of_too_little_is_none(trials: pd.DataFrame) -> None:
    assert importance(trials, "val_top1") is None


def test_importance_takes_words_flags_and_absent_fields() -> None:
    trials = moved_by_b(60)
    trials["method.join"] = np.where(trials["method.b"] > 5, "late", "early")
    trials["method.flag"] = trials["method.b"] > 5
    trials["method.absent"] = np.where(trials["method.b"] > 5, 1.0, np.nan)
    found = importance(trials, "val_top1")
    assert found is not None
    assert {name for name, _, _ in found.fields} >= {"method.join", "method.flag", "method.absent"}


def test_published_rows_are_of_the_same_model_and_data_only() -> None:
    rows = published("resnet18.tv_in1k on ImageNet")
    assert {"wfn", "gpfq", "apot"} == set(rows["method"])
    assert rows.loc[rows["method"] == "wfn", ["unique_values", "test_top1"]].to_numpy().tolist() == [
        [193, 0.703], [164, 0.697], [90, 0.673],
    ]  # fmt: skip
    assert published("resnet18 on imagenette").empty
    assert published("resnet20_cifar on imagenet").empty


def test_configurations_are_columns(record: Record, tmp_path: Path) -> None:
    one = series(record, tmp_path, [{**configured(3), "val_top1": 0.9, "unique_values": 4}, {"config_json": "{"}])
    assert one.trials["method.b"].tolist()[0] == 3
    assert np.isnan(one.trials["method.b"].tolist()[1])
