"""A small study with every kind of trial."""

from collections.abc import Callable
from typing import Any

from pwfn.results.store import ResultsStore

Rows = list[dict[str, Any]]
Record = Callable[..., ResultsStore]

SMALL: Rows = [
    {"val_top1": 0.90, "test_top1": 0.89, "unique_values": 4},
    {"val_top1": 0.97, "test_top1": 0.95, "unique_values": 17},
    {"val_top1": 0.96, "test_top1": 0.96, "unique_values": 17},  # dominated
    {"val_top1": 0.98, "test_top1": 0.97, "unique_values": 54},
    {"val_top1": 0.98, "test_top1": 0.96, "unique_values": 54},  # equal to the one before
    {"val_top1": 0.99, "unique_values": 2, "state": "pruned"},  # not finished, hence not on the front
    {"state": "failed", "failure_class": "nan"},
    {"val_top1": float("nan"), "unique_values": 3, "state": "failed"},
]
