"""Rounds, codebooks and layers, read or said to be missing; many files at once as one by one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from recorded import METHODS, SMALL, Record, fill

from analysis.details import read_details, read_layers
from analysis.layers import LayersError, layer_entropies
from analysis.parquet import read_table
from analysis.payload import compressed, numbers, payload
from analysis.series import panels
from analysis.storage import Folder
from analysis.study import load
from pwfn.codebook import Codebook, measure_codebook
from pwfn.export.metadata import ModelMetadata
from pwfn.export.network import encode_network


def test_details_are_read_in_order(record: Record, tmp_path: Path) -> None:
    fill(record("digits", SMALL), ["t3", "t0"])
    details = read_details(load(str(tmp_path / "results" / "digits")))
    assert details.rounds["trial_id"].tolist() == ["t0"] * 3 + ["t3"] * 3
    assert details.rounds["round"].tolist() == [0, 1, 2] * 2
    assert details.values["value"].tolist() == [-0.5, 0, 0.25, 0.375] * 2
    assert details.values["order"].tolist() == [1, 0, 1, 2] * 2
    assert details.notes == [
        "4 of 6 trials with a result have no rounds file",
        "3 of 5 complete trials have no codebook file",
    ]


def test_many_files_at_once_give_what_one_by_one_gives(record: Record, tmp_path: Path) -> None:
    store = record("digits", METHODS)
    fill(store, ["t0", "t1"])
    store.compact()
    fill(store, ["t1", "t2"])
    store.write_trial({"trial_id": "t0", "val_top1": 0.5, "state": "complete"})
    for kind in ("trials", "rounds", "values"):
        folder = Folder.at(f"{store.results}/digits/{kind}")
        fast, notes = read_table(folder, []), []
        path = Path(folder.path, folder.files(".parquet")[0])
        table = pq.ParquetFile(path).read()
        pq.write_table(table.replace_schema_metadata({"pwfn.schema_version": "0"}), path)  # makes the reader careful
        slow = read_table(folder, notes)
        assert len(notes) == 1
        keys = [name for name in ("trial_id", "round", "value") if name in slow]
        columns = [name for name in slow if slow[name].notna().any()]
        fast, slow = (frame[columns].sort_values(keys, ignore_index=True) for frame in (fast, slow))
        pd.testing.assert_frame_equal(fast, slow, check_dtype=False)


def test_a_layers_entropy_is_that_of_its_weights(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 20))
    for parameter in network.parameters():
        parameter.data = torch.randint(-4, 5, parameter.shape, generator=generator) / 8
    network[1].weight.data[:] = 0.25  # one value: no bits
    found = layer_entropies(encode_network(network, ModelMetadata()))
    expected = [
        (name, parameter.numel(), measure_codebook(Codebook.of(parameter)).entropy_bits)
        for name, parameter in network.named_parameters()
    ]
    assert [row[:2] for row in sorted(found)] == [row[:2] for row in sorted(expected)]
    assert [row[2] for row in sorted(found)] == pytest.approx([row[2] for row in sorted(expected)])


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "the file is empty"), (b"\0" * 64, "not a "), (b"not a network, whatever its name is", "not a ")],
)
def test_a_broken_network_is_said(content: bytes, why: str, record: Record, tmp_path: Path) -> None:
    with pytest.raises(LayersError):
        layer_entropies(content)
    store = record("digits", SMALL[:1])
    store.write_model("t0", content)
    study, notes = load(str(tmp_path / "results" / "digits")), []
    assert study.folder is not None
    assert read_layers(study.folder, study.trials, notes) == {}
    assert len(notes) == 1
    assert notes[0].startswith(f"models/t0.safetensors cannot be read, its layers are not shown: {why}")


def test_a_flipped_bit_of_a_network_is_noticed() -> None:
    content = bytearray(encode_network(torch.nn.Linear(40, 30), ModelMetadata()))
    assert len(layer_entropies(bytes(content))) == 0  # nothing is shared, hence nothing is coded
    content[len(content) // 2] ^= 1
    with pytest.raises(LayersError, match="the file is damaged"):
        layer_entropies(bytes(content))


def test_numbers_keep_six_digits() -> None:
    assert numbers([1.0, np.nan, 0.123456789, None, 1e-9, 7]) == [1, None, 0.123457, None, 1e-9, 7]


def test_the_pages_numbers_are_the_trials(record: Record, tmp_path: Path) -> None:
    store = record("digits", METHODS)
    fill(store, ["t0", "t9"])
    study = load(str(tmp_path / "results" / "digits"))
    content = payload([study], panels([study]), {"digits": read_details(study)})
    rows = content["trials"]
    assert rows["id"] == [f"t{number}" for number in range(12)]
    assert rows["metrics"]["unique_values"] == [16] * 3 + [40] * 3 + [20, 11, None, 16, 16, 16]
    assert rows["seed"] == ["0", "1", "2"] * 2 + ["0"] * 3 + ["0", "1", "2"]
    assert rows["fields"]["method.b"] == [3, 3, 3, 4, 4, 4, 5, 6, 7, 16, 16, 16]
    pwfn, kmeans = content["series"]
    assert pwfn["fronts"]["unique_values"] == [0, 3]
    assert kmeans["fronts"]["unique_values"] == [9]
    assert [each["trials"] for each in pwfn["replicated"]] == [[0, 1, 2], [3, 4, 5]]
    assert content["rounds"]["start"] == [0] + [3] * 9 + [6] * 3
    assert content["values"]["columns"]["count"] == [1, 3, 1, 1] * 2
    assert len(compressed(content)) < 20_000


def test_room_goes_to_the_front_first(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = record("digits", METHODS)
    fill(store, ["t0", "t1", "t6", "t9"])
    monkeypatch.setattr("analysis.payload.MOST_ROUNDS", 7)
    study = load(str(tmp_path / "results" / "digits"))
    content = payload([study], panels([study]), {"digits": read_details(study)})
    assert content["rounds"]["omitted"] == [1, 6]
    assert content["rounds"]["start"][-1] == 6
