"""Reading a results folder: complete, running, half there, older, broken."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded import SMALL, Record

from analysis.errors import AnalysisError
from analysis.parquet import _read_at_once
from analysis.storage import Folder
from analysis.study import DEFAULT_OBJECTIVES, NUMBERS, TEXTS, Machine, load, studies, study_folder


def test_a_study_is_read(record: Record, tmp_path: Path) -> None:
    store = record("digits", SMALL)
    store.append_round("t0", {"round": 0})
    store.append_round("running", {"round": 0})
    study = load(str(tmp_path / "results" / "digits"))
    assert study.name == "digits"
    assert study.objectives == DEFAULT_OBJECTIVES
    assert study.trials["trial_id"].tolist() == [f"t{number}" for number in range(8)]
    assert study.trials["unique_values"].tolist()[:6] == [4, 17, 17, 54, 54, 2]
    assert study.trials["val_top1"].isna().tolist()[-2:] == [True, True]
    assert "method.b" in study.trials
    assert study.num_running == 1
    assert study.notes == []


@pytest.mark.parametrize(("counts", "note"), [([None, 0], None), ([None, 1200], "up to 1,200"), ([3, 3], "3")])
def test_broken_images_that_trials_left_out_are_said(
    counts: list[int | None], note: str | None, record: Record, tmp_path: Path
) -> None:
    rows = [{"val_top1": 0.9, "unique_values": 4, "num_broken_images": count} for count in counts]
    record("digits", rows)
    notes = load(str(tmp_path / "results" / "digits")).notes
    words = "images could not be read and were left out (data.broken_images: skip): accuracies are those of the others"
    assert notes == ([] if note is None else [f"{note} {words}"])


def test_an_empty_study_has_every_column(record: Record, tmp_path: Path) -> None:
    record("digits", [])
    study = load(str(tmp_path / "results" / "digits"))
    assert len(study.trials) == 0
    assert {*TEXTS, *NUMBERS} <= set(study.trials)
    assert study.notes == ["no trial has ended yet"]


def test_a_study_whose_trials_differ_says_so(record: Record, tmp_path: Path) -> None:
    differences = ["torch: 2.12.0 -> 2.13.0", "training labels: 1f2e3d -> 9a8b7c"]
    record("digits", SMALL, {"num_trials": 10, "forced": [{"at": "2026-01-02T03:04:05", "differences": differences}]})
    notes = load(str(tmp_path / "results" / "digits")).notes
    assert (
        "trials from 2026-01-02 03:04 on differ from those before in 2 points (--force-resume), such as torch: "
        "2.12.0 -> 2.13.0"
    ) in notes


def test_missing_files_are_said(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    folder = tmp_path / "results" / "digits"
    (folder / "study.json").unlink()
    (folder / "trials" / "t1.parquet").write_bytes(b"PAR1 not really")
    (folder / "trials" / "t2.parquet").write_bytes(b"")
    study = load(str(folder))
    assert len(study.trials) == 6
    assert study.notes[0] == "study.json is missing: objectives are assumed, the plan is not known"
    assert study.notes[1].startswith("trials/t1.parquet cannot be read and is left out: ")
    assert study.notes[2].startswith("trials/t2.parquet cannot be read and is left out: ")
    assert len(study.notes) == 3


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("{", "study.json is not a JSON object"),
        ("[]x", "study.json is not a JSON object"),
        ('{"objectives": {"val_top1": "up"}}', 'study.json: objectives {"val_top1": "up"} is not a mapping'),
        ('{"objectives": ["val_top1"]}', 'study.json: objectives ["val_top1"] is not a mapping'),
    ],
)
def test_a_study_json_that_says_nonsense_is_said(content: str, note: str, record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    (tmp_path / "results" / "digits" / "study.json").write_text(content)
    study = load(str(tmp_path / "results" / "digits"))
    assert study.notes[0].startswith(note)
    assert study.objectives == DEFAULT_OBJECTIVES


@pytest.mark.parametrize(
    "space",
    [None, [], {"constraints": "all"}, {"constraints": {"val_top1": 3}}, {"constraints": {"val_top1": {"min": "high"}}},
     {"constraints": {"size_bytes": {"max_drop": 1}}}],
)  # fmt: skip
def test_constraints_that_say_nonsense_are_not_applied(space: object, record: Record, tmp_path: Path) -> None:
    record("digits", SMALL, {"objectives": DEFAULT_OBJECTIVES, "space": space})
    study = load(str(tmp_path / "results" / "digits"))
    assert "infeasible" not in set(study.trials["state"])
    expected = (
        [f"study.json: constraints {json.dumps(space['constraints'])} are not"] if isinstance(space, dict) else []
    )
    assert [note.partition(" min")[0] for note in study.notes] == expected


def test_a_constraint_on_what_no_trial_has_lets_none_pass(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL, {"objectives": DEFAULT_OBJECTIVES, "space": {"constraints": {"energy": {"max": 3}}}})
    study = load(str(tmp_path / "results" / "digits"))
    assert study.notes == ["no trial has the column energy"]
    assert set(study.trials["state"]) == {"infeasible", "pruned", "failed"}


def test_an_older_schema_is_said_and_its_gaps_are_empty(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL[:3])
    folder = tmp_path / "results" / "digits" / "trials"
    for name in ("t0.parquet", "t1.parquet"):
        table = pq.ParquetFile(folder / name).read().drop_columns(["test_top1", "method"])
        pq.write_table(table.replace_schema_metadata({"pwfn.schema_version": "0"}), folder / name)
    study = load(str(folder.parent))
    assert study.trials["test_top1"].tolist()[2] == 0.96
    assert np.isnan(study.trials["test_top1"].tolist()[0])
    assert study.notes == [
        "2 files of trials have the older schema version 0 (this report knows 1 and 2): columns they lack are empty"
    ]


@pytest.mark.parametrize("later", ["t0", "t2"])
def test_a_column_that_only_some_files_have_is_read(later: str, record: Record, tmp_path: Path) -> None:
    """A metric was added, and the study went on; the schema's version is the same."""
    record("digits", SMALL[:3], {"objectives": {"val_top1": "maximize", "energy": "minimize"}})
    path = tmp_path / "results" / "digits" / "trials" / f"{later}.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(table.append_column("energy", pa.array([0.5])), path)
    study = load(str(tmp_path / "results" / "digits"))
    energies = study.trials.set_index("trial_id")["energy"]
    assert energies.pop(later) == 0.5
    assert energies.isna().tolist() == [True, True]
    assert len(study.trials["val_top1"].dropna()) == 3
    assert study.notes == []


def test_a_whole_number_of_some_files_does_not_cut_the_fractions_of_others(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL[:3])
    path = tmp_path / "results" / "digits" / "trials" / "t0.parquet"
    table = pq.ParquetFile(path).read()
    at = table.schema.get_field_index("val_top1")
    pq.write_table(table.set_column(at, "val_top1", pa.array([1])), path)
    assert load(str(tmp_path / "results" / "digits")).trials["val_top1"].tolist() == [1, 0.97, 0.96]


def test_files_that_differ_in_descriptions_are_read_at_once(record: Record, tmp_path: Path) -> None:
    """The words that describe a column may change while a study runs; that must not make its reports slow."""
    record("digits", SMALL[:3])
    folder = tmp_path / "results" / "digits" / "trials"
    table = pq.ParquetFile(folder / "t0.parquet").read()
    described = pa.schema(
        [field.with_metadata({"description": "new"}) for field in table.schema], table.schema.metadata
    )
    pq.write_table(table.cast(described), folder / "t0.parquet")
    names = ["t0.parquet", "t1.parquet", "t2.parquet"]
    assert len(_read_at_once(Folder.at(str(folder)), names, ())) == 3


def test_files_of_other_kinds_are_said_or_joined(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL[:3])
    folder = tmp_path / "results" / "digits" / "trials"
    pq.write_table(pa.table({"other": [1]}), folder / "foreign.parquet")
    table = pq.ParquetFile(folder / "t0.parquet").read()
    at = table.schema.get_field_index("unique_values")
    pq.write_table(table.set_column(at, "unique_values", pa.array(["4"])), folder / "t0.parquet")
    study = load(str(folder.parent))
    assert study.notes == ["trials/foreign.parquet cannot be read and is left out: it has no column trial_id"]
    assert study.trials["unique_values"].tolist() == [4, 17, 17]


def test_a_column_that_no_file_has_is_said(record: Record, tmp_path: Path) -> None:
    store = record("digits", SMALL, {"objectives": {"val_top1": "maximize", "energy": "minimize"}})
    study = load(str(tmp_path / "results" / store.study))
    assert study.notes == ["no trial has the column energy"]
    assert study.trials["energy"].isna().all()


def test_compacted_files_are_read_and_each_trial_once(record: Record, tmp_path: Path) -> None:
    store = record("digits", SMALL)
    store.compact()
    store.write_trial({"trial_id": "t0", "number": 0, "state": "complete", "val_top1": 0.5, "unique_values": 4})
    store.append_round("t9", {"round": 0})
    store.compact()
    store.write_trial({"trial_id": "t0", "number": 0, "state": "complete", "val_top1": 0.6, "unique_values": 4})
    study = load(str(tmp_path / "results" / "digits"))
    assert sorted(study.trials["trial_id"]) == [f"t{number}" for number in range(8)]
    assert study.trials.set_index("trial_id").loc["t0", "val_top1"] == 0.6
    assert study.num_running == 1


def test_a_misspelt_study_names_the_nearest(record: Record, tmp_path: Path) -> None:
    record("digits", [])
    record("cifar10", [])
    (tmp_path / "results" / "notes").mkdir()
    assert studies(str(tmp_path / "results")) == ["cifar10", "digits"]
    with pytest.raises(AnalysisError, match=r"/results: no study digts; did you mean digits\?$"):
        load(str(tmp_path / "results" / "digts"))
    with pytest.raises(AnalysisError, match=r"/results: no study zzz; there are: cifar10, digits$"):
        load(str(tmp_path / "results" / "zzz"))
    with pytest.raises(AnalysisError, match=r"/none: no study zzz; there is none yet$"):
        load(str(tmp_path / "none" / "zzz"))


def test_a_malformed_uri_is_said() -> None:
    with pytest.raises(AnalysisError, match=r"foo://x/digits: cannot open: Unrecognized filesystem type"):
        load("foo://x/digits")


def test_the_folder_of_a_study() -> None:
    assert study_folder("results/", "digits") == "results/digits"
    assert study_folder("s3://bucket/r?region=x", "digits") == "s3://bucket/r/digits?region=x"


def test_a_machine_that_failed_is_named_with_how_often() -> None:
    failure = {"trial_id": "t0", "failure_class": "device", "message": "ECC error"}
    assert Machine("node-1", [failure], False).words() == "node-1 failed once under a trial with device: ECC error"
    assert Machine("node-1", [failure, failure], True).words() == (
        "node-1 failed 2 times under trials, the last time with device: ECC error; it was left alone from then on"
    )
