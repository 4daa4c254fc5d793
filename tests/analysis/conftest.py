"""Recorded studies, written by the store as a sweep would."""

from pathlib import Path
from typing import Any

import pytest
from recorded import Record, Rows

from pwfn.results.store import ResultsStore


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Write a study's rows below `tmp_path/results`."""

    def write(name: str, rows: Rows, card: dict[str, Any] | None = None, **columns: Any) -> ResultsStore:
        store = ResultsStore(str(tmp_path / "results"), name)
        store.create()
        objectives = {"val_top1": "maximize", "unique_values": "minimize"}
        store.write_study(card if card is not None else {"study": name, "objectives": objectives, "num_trials": 10})
        for number, row in enumerate(rows):
            common = {"trial_id": f"t{number}", "number": number, "state": "complete", "study": name}
            place = {"method": "pwfn", "model": "digits_cnn", "data": "digits"}
            network = {"float_val_top1": 0.985, "float_test_top1": 0.975}
            store.write_trial({**common, **place, **network, **columns, **row})
        return store

    return write
