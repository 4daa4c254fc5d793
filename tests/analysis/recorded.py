"""Small studies with every kind of trial."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from analysis.details import SIGMAS
from pwfn.codebook import Codebook
from pwfn.results.store import ResultsStore

Rows = list[dict[str, Any]]
Record = Callable[..., ResultsStore]

SMALL: Rows = [
    {"val_top1": 0.90, "test_top1": 0.89, "unique_values": 4, "config_json": '{"method": {"b": 2}, "seed": 1}'},
    {"val_top1": 0.97, "test_top1": 0.95, "unique_values": 17},
    {"val_top1": 0.96, "test_top1": 0.96, "unique_values": 17},  # dominated
    {"val_top1": 0.98, "test_top1": 0.97, "unique_values": 54},
    {"val_top1": 0.98, "test_top1": 0.96, "unique_values": 54},  # equal to the one before
    {"val_top1": 0.99, "unique_values": 2, "state": "pruned"},  # not finished, hence not on the front
    {"state": "failed", "failure_class": "nan"},
    {"val_top1": float("nan"), "unique_values": 3, "state": "failed"},
]


def configured(b: int, lr: float = 0.01, *, seed: int = 0, method: str = "pwfn") -> dict[str, Any]:
    """A configuration, as a row's columns."""
    config = {"method": {"name": method, "b": b}, "training": {"lr": lr}, "seed": seed}
    return {"method": method, "seed": seed, "config_json": json.dumps(config)}


def seeds(b: int, count: int, validation: float, tests: list[float], method: str = "pwfn") -> Rows:
    """Several seeds of one configuration, three of which are 0.2 points above `validation` in the mean."""
    return [
        {
            **configured(b, seed=seed, method=method),
            "unique_values": count,
            "val_top1": validation + (0, 0.001, 0.005)[seed],
            "test_top1": test,
        }
        for seed, test in enumerate(tests)
    ]


METHODS: Rows = [
    *seeds(3, 16, 0.975, [0.970, 0.972, 0.974]),
    *seeds(4, 40, 0.985, [0.976, 0.978, 0.977]),
    {**configured(5, 0.02), "unique_values": 20, "val_top1": 0.60, "test_top1": 0.58},
    {**configured(6, 0.02), "unique_values": 11, "val_top1": 0.95, "state": "pruned"},
    {**configured(7, 0.02), "state": "failed", "failure_class": "nan", "failure_message": "loss is <NaN> in round 3"},
    *seeds(16, 16, 0.96, [0.960, 0.961, 0.962], "kmeans"),
]
"""Two methods, seeds, a ruined network, a pruned and a failed trial; the float network has 98.5 % and 97.5 %."""


SHOWN: Rows = [
    *METHODS,
    {
        **configured(9),
        "trial_id": "t12-s0",
        "number": 12,
        "stage": 0,
        "unique_values": 30,
        "val_top1": 0.97,
        "test_top1": 0.965,
    },
    {
        **configured(9),
        "trial_id": "t12",
        "number": 12,
        "stage": 1,
        "unique_values": 10,
        "val_top1": 0.95,
        "test_top1": 0.94,
    },
    {**configured(10), "unique_values": 30, "val_top1": 0.97, "test_top1": 0.965},
]
"""The same, a trial of two stages, and a trial that ties with its first stage: 15 points of 14 trials."""


def write_study(
    results: Path, name: str, rows: Rows, card: dict[str, Any] | None = None, **columns: Any
) -> ResultsStore:
    """Write a study's rows, each with the same model, data and float network; `card` is study.json."""
    store = ResultsStore(str(results), name)
    store.create()
    objectives = {"val_top1": "maximize", "unique_values": "minimize"}
    store.write_study(card if card is not None else {"study": name, "objectives": objectives, "num_trials": 10})
    for number, row in enumerate(rows):
        common = {"trial_id": f"t{number}", "number": number, "state": "complete", "study": name}
        place = {"method": "pwfn", "model": "digits_cnn", "data": "digits"}
        network = {"float_val_top1": 0.985, "float_test_top1": 0.975}
        store.write_trial({**common, **place, **network, **columns, **row})
    return store


def fill(store: ResultsStore, trial_ids: list[str]) -> None:
    """Write rounds and codebooks of trials."""
    for trial_id in trial_ids:
        for number in range(3):
            store.append_round(
                trial_id,
                {
                    "round": number,
                    "num_rounds": 3,
                    "fraction": (number + 1) / 3,
                    "val_top1_before": 0.98,
                    "val_top1": 0.95 + 0.01 * number,
                    "unique_values": 5 * (number + 1),
                    "method_numbers": dict(zip(SIGMAS, (0.001, 0.002, 0.003, 0.004, 0.005), strict=True)),
                },
            )
        store.write_values(trial_id, Codebook.of(torch.tensor([-0.5, 0.0, 0.0, 0.0, 0.25, 0.375])))
