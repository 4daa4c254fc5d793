"""The results folder: what is written is read back, whole or not at all, once and only once."""

import datetime as dt
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from pwfn.codebook import Codebook
from pwfn.errors import UserError
from pwfn.results.schema import ROUNDS, SCHEMA_VERSION, TRIALS, VALUES, SchemaError
from pwfn.results.store import ResultsStore

TRIAL = {
    "trial_id": "t0",
    "number": 0,
    "state": "complete",
    "val_top1": 0.975,
    "unique_values": 17,
    "started_at": dt.datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=dt.UTC),
    "method.b": 7,
    "method.fractions": [0.5, 1.0],
}


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    store = ResultsStore(str(tmp_path / "results"), "digits")
    store.create()
    return store


def names(store: ResultsStore, folder: str) -> list[str]:
    return sorted(path.name for path in Path(store.results, store.study, folder).iterdir())


def test_a_trial_is_read_back_and_replaced(store: ResultsStore) -> None:
    assert store.read_trial("t0") is None
    assert store.read_trials() == []
    store.write_trial({**TRIAL, "val_top1": 0.1})
    store.write_trial(TRIAL)
    row = store.read_trial("t0")
    assert row is not None
    assert {name: row[name] for name in TRIAL} == TRIAL
    assert list(row) == TRIALS.names
    assert store.read_trials() == [row]
    assert names(store, "trials") == ["t0.parquet"]


def test_rounds_are_ordered_and_never_doubled(store: ResultsStore) -> None:
    for number, accuracy in [(0, 0.9), (2, 0.7), (1, 0.8), (2, 0.75)]:
        store.append_round("t0", {"round": number, "val_top1": accuracy})
    store.append_round("t1", {"round": 0})
    assert [(row["round"], row["val_top1"]) for row in store.read_rounds("t0")] == [(0, 0.9), (1, 0.8), (2, 0.75)]
    assert store.read_rounds("unknown") == []


def test_a_refused_round_leaves_the_earlier_ones(store: ResultsStore) -> None:
    store.append_round("t0", {"round": 0})
    with pytest.raises(SchemaError, match="column accuracy is not in the closed schema"):
        store.append_round("t0", {"round": 1, "accuracy": 0.9})
    with pytest.raises(SchemaError, match="column round is the key and must be given"):
        store.append_round("t0", {"val_top1": 0.9})
    assert [row["round"] for row in store.read_rounds("t0")] == [0]


def test_an_unknown_state_is_refused(store: ResultsStore) -> None:
    with pytest.raises(SchemaError, match="column state takes one of complete, pruned, failed, but got 'done'"):
        store.write_trial({**TRIAL, "state": "done"})
    assert store.read_trials() == []


def test_values_are_the_codebook(store: ResultsStore) -> None:
    store.write_values("t0", Codebook.of(torch.tensor([0.0, -0.0, 0.75, 0.5, 0.5])))
    table = pq.ParquetFile(Path(store.results, "digits", "values", "t0.parquet")).read()
    assert table.schema.equals(VALUES)
    assert table.to_pydict() == {
        "trial_id": ["t0"] * 3,
        "value": [0.0, 0.5, 0.75],
        "count": [2, 2, 1],
        "order": [0, 1, 2],
    }


def test_files_keep_units_and_version(store: ResultsStore) -> None:
    store.write_trial(TRIAL)
    store.append_round("t0", {"round": 0})
    for folder, schema in [("trials", TRIALS), ("rounds", ROUNDS)]:
        read = pq.read_schema(Path(store.results, "digits", folder, "t0.parquet"))
        assert read.equals(schema)
        assert read.metadata == schema.metadata
        assert all(schema.field(field.name).metadata.items() <= field.metadata.items() for field in read)


def test_study_json_is_pretty_and_has_the_version(store: ResultsStore) -> None:
    assert store.read_study() is None
    store.write_study({"study": "digits", "objectives": {"val_top1": "maximize"}})
    text = Path(store.results, "digits", "study.json").read_text()
    assert text.startswith('{\n  "schema_version": 2,\n  "study": "digits"')
    assert store.read_study() == {**json.loads(text), "schema_version": SCHEMA_VERSION}


def test_models_checkpoints_and_baselines(store: ResultsStore) -> None:
    assert store.read_model("t0") is None
    store.write_model("t0", b"model")
    assert Path(store.model_path("t0")).read_bytes() == store.read_model("t0") == b"model"
    store.delete_model("t0")
    store.delete_model("t0")
    assert store.read_model("t0") is None
    store.write_checkpoint("t0", b"1")
    store.write_checkpoint("t0", b"2")
    assert store.read_checkpoint("t0") == b"2"
    store.delete_checkpoint("t0")
    store.delete_checkpoint("t0")
    assert store.read_checkpoint("t0") is None
    assert store.read_baseline("key") is None
    store.write_baseline("key", b"weights", {"val_top1": 0.98})
    assert store.read_baseline("key") == (b"weights", {"val_top1": 0.98})


def test_a_baseline_without_its_card_is_not_there(store: ResultsStore) -> None:
    store.write_baseline("key", b"weights", {})
    Path(store.results, "digits", "baseline", "key.json").unlink()
    assert store.read_baseline("key") is None


def test_a_store_is_small_and_keeps_its_folder_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = ResultsStore("results", "digits")
    store.create()
    sent = pickle.dumps(store)
    assert len(sent) < 500
    monkeypatch.chdir("/")
    pickle.loads(sent).write_trial(TRIAL)
    assert (tmp_path / "results" / "digits" / "trials" / "t0.parquet").exists()


def test_a_file_uri_is_a_local_folder(tmp_path: Path) -> None:
    store = ResultsStore((tmp_path / "results").as_uri(), "digits")
    store.create()
    store.write_trial(TRIAL)
    assert (tmp_path / "results" / "digits" / "trials" / "t0.parquet").exists()


def test_scratch_lies_beside_the_results(store: ResultsStore) -> None:
    assert store.scratch == f"{store.results}/digits/ray"
    assert ResultsStore("s3://bucket/r?region=x", "digits").scratch == "s3://bucket/r/digits/ray?region=x"
    Path(store.scratch, "below").mkdir(parents=True)
    store.delete_scratch()
    store.delete_scratch()
    assert not Path(store.scratch).exists()


def test_importing_the_store_needs_neither_torch_nor_ray() -> None:
    code = "import sys, pwfn.results.store; print({'torch', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# Bad input


@pytest.mark.parametrize("study", ["", "a/b", "..", ".hidden", "a b"])
def test_a_study_needs_a_plain_name(study: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study '.*' is not a name: letters, digits and _ \. = \+ - are allowed"):
        ResultsStore(str(tmp_path), study)


@pytest.mark.parametrize("trial_id", ["../t", "compacted-1", ""])
def test_a_trial_needs_a_plain_name(trial_id: str, store: ResultsStore) -> None:
    with pytest.raises(ValueError, match=r"cannot name a file"):
        store.write_trial({"trial_id": trial_id})


def test_an_unknown_filesystem_is_refused() -> None:
    with pytest.raises(UserError, match=r"foo://x/y: cannot open: Unrecognized filesystem type"):
        ResultsStore("foo://x/y", "digits").create()
    with pytest.raises(UserError, match=r"mock:///x: results are kept in a local folder or at s3://, gs:// or abfs://"):
        ResultsStore("mock:///x", "digits").create()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match=r"/results/digits/.*: cannot make the folder: Not a directory"):
        ResultsStore(str(tmp_path / "results"), "digits").create()


def test_create_removes_what_it_made_when_it_fails(tmp_path: Path) -> None:
    study = tmp_path / "new" / "digits"
    store = ResultsStore(str(tmp_path / "new"), "digits")
    study.mkdir(parents=True)
    (study / "models").write_text("in the way")
    with pytest.raises(UserError, match=r"digits/models.*: cannot write: Not a directory"):
        store.create()
    assert [path.name for path in study.iterdir()] == ["models"]


def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o555)
    code = f"""
import os
from pwfn.results.store import ResultsStore
if os.getuid() == 0:
    os.seteuid(65534)  # root may write everywhere
ResultsStore({str(tmp_path / "results")!r}, "digits").create()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].startswith("pwfn.results.files.RefusedError: ")
    assert "Permission denied" in result.stderr.splitlines()[-1]
    assert list((tmp_path / "results").iterdir()) == []


def test_a_full_disk_keeps_the_earlier_file(store: ResultsStore) -> None:
    store.write_checkpoint("t0", b"earlier")
    code = f"""
import resource, signal
from pwfn.results.store import ResultsStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
ResultsStore({store.results!r}, "digits").write_checkpoint("t0", b"x" * 5000)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RefusedError" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].endswith("checkpoints/t0: cannot write: File too large")
    assert names(store, "checkpoints") == ["t0"]
    assert store.read_checkpoint("t0") == b"earlier"


def test_broken_files_are_named(store: ResultsStore) -> None:
    Path(store.results, "digits", "trials", "t0.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"trials/t0\.parquet: cannot read: .*Parquet"):
        store.read_trials()
    Path(store.results, "digits", "study.json").write_text("[1")
    with pytest.raises(UserError, match=r"study\.json: not a JSON object"):
        store.read_study()


def test_a_newer_schema_is_refused_and_an_older_one_filled(store: ResultsStore) -> None:
    path = Path(store.results, "digits", "trials", "t0.parquet")
    store.write_trial(TRIAL)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.select(["trial_id", "number"]).replace_schema_metadata({"pwfn.schema_version": "0"}), path)
    assert store.read_trials() == [
        {name: TRIAL[name] if name in ("trial_id", "number") else None for name in TRIALS.names}
    ]
    pq.write_table(table.replace_schema_metadata({"pwfn.schema_version": "99"}), path)
    with pytest.raises(UserError, match=r"trials/t0\.parquet: written with schema version 99; .* up to 2"):
        store.read_trials()


# Readers beside writers


def test_duckdb_and_pandas_read_the_folder_while_it_is_written(store: ResultsStore) -> None:
    store.write_trial(TRIAL)
    glob = f"{store.results}/digits/trials/*.parquet"
    query = f"""SELECT count(*), count(DISTINCT trial_id), sum("method.b"), max(started_at) FROM '{glob}'"""
    writer = threading.Thread(target=lambda: [store.write_trial({**TRIAL, "trial_id": f"t{n}"}) for n in range(50)])
    writer.start()
    seen = []
    while writer.is_alive():
        rows, trials, sum_of_b, started_at = duckdb.connect().execute(query).fetchone() or ()
        assert rows == trials == sum_of_b / 7
        assert started_at == TRIAL["started_at"].replace(tzinfo=None)
        seen.append(rows)
    writer.join()
    assert len(seen) > 1
    assert seen == sorted(seen)
    frame = pd.read_parquet(f"{store.results}/digits/trials")
    assert len(frame) == 50
    assert list(frame.columns) == TRIALS.names


def test_a_reader_never_sees_a_broken_file(store: ResultsStore) -> None:
    store.append_round("t0", {"round": 0})
    path = Path(store.results, "digits", "rounds", "t0.parquet")
    writer = threading.Thread(target=lambda: [store.append_round("t0", {"round": n}) for n in range(60)])
    writer.start()
    lengths = []
    while writer.is_alive():
        rounds = pq.ParquetFile(path).read()["round"].to_pylist()
        assert rounds == list(range(len(rounds)))
        lengths.append(len(rounds))
    writer.join()
    assert len(set(lengths)) > 1


def test_a_killed_writer_leaves_no_part_under_a_final_name(store: ResultsStore) -> None:
    code = f"""
import itertools
from pwfn.results.store import ResultsStore
store = ResultsStore({store.results!r}, "digits")
for n in itertools.count():
    store.append_round("t0", {{"round": n % 40}})
    store.write_checkpoint("t0", bytes([n % 256]) * 300_000)
    if n == 0:
        print("begun", flush=True)
"""
    rng = np.random.default_rng(0)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(float(rng.random()) * 0.3)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        rounds = [row["round"] for row in store.read_rounds("t0")]
        assert rounds == list(range(len(rounds)))
        checkpoint = store.read_checkpoint("t0")
        assert checkpoint is not None
        assert len(checkpoint) == 300_000
        assert len(set(checkpoint)) == 1
    assert [name for name in names(store, "rounds") if name.endswith(".parquet")] == ["t0.parquet"]


# Compaction


def fill(store: ResultsStore, trials: range) -> None:
    for number in trials:
        store.append_round(f"t{number}", {"round": 0})
        store.append_round(f"t{number}", {"round": 1})
        store.write_values(f"t{number}", Codebook.of(torch.tensor([0.0, 0.5])))
        store.write_trial({**TRIAL, "trial_id": f"t{number}", "number": number})


def test_compaction_joins_ended_trials_and_keeps_every_row(store: ResultsStore) -> None:
    fill(store, range(3))
    store.append_round("running", {"round": 0})
    before = store.read_trials()
    store.compact()
    assert len(names(store, "trials")) == 1
    assert len(names(store, "rounds")) == 2
    assert store.read_trials() == before
    assert store.read_trial("t1") == before[1]
    assert [row["round"] for row in store.read_rounds("t2")] == [0, 1]
    assert pq.read_table(Path(store.results, "digits", "values")).num_rows == 6
    fill(store, range(3, 5))
    store.compact()
    assert len(names(store, "trials")) == 1
    assert [row["trial_id"] for row in store.read_trials()] == ["t0", "t1", "t2", "t3", "t4"]


def test_a_trial_that_goes_on_after_compaction_keeps_its_rounds(store: ResultsStore) -> None:
    fill(store, range(2))
    store.compact()
    store.append_round("t0", {"round": 2})
    store.write_trial({**TRIAL, "val_top1": 0.5})
    for _ in range(2):
        assert [row["round"] for row in store.read_rounds("t0")] == [0, 1, 2]
        assert [row["val_top1"] for row in store.read_trials()] == [0.5, 0.975]
        store.compact()
    assert len(names(store, "rounds")) == 1


def test_a_crash_between_joining_and_deleting_doubles_nothing(store: ResultsStore) -> None:
    fill(store, range(3))
    folder = Path(store.results, "digits", "trials")
    small = {path: path.read_bytes() for path in folder.iterdir()}
    before = store.read_trials()
    store.compact()
    for path, content in small.items():
        path.write_bytes(content)
    assert store.read_trials() == before
    store.compact()
    assert store.read_trials() == before
    assert len(names(store, "trials")) == 1


def test_a_reader_beside_a_compaction_misses_no_row(store: ResultsStore) -> None:
    fill(store, range(30))
    compaction = threading.Thread(target=store.compact)
    compaction.start()
    readings = 0
    while compaction.is_alive():
        assert len(store.read_trials()) == 30
        readings += 1
    compaction.join()
    assert readings > 1
    assert len(store.read_trials()) == 30


def test_a_published_copy_has_the_rows_of_ended_trials_in_one_file_per_folder(store: ResultsStore, tmp_path) -> None:
    fill(store, range(3))
    store.append_round("running", {"round": 0})
    store.write_study({"study": "digits"})
    store.compact()
    fill(store, range(2, 4))
    for _ in range(2):
        copy = store.publish(str(tmp_path / "copy"))
        assert copy.read_trials() == store.read_trials()
        assert copy.read_study() == store.read_study()
        assert {row["trial_id"] for row in copy.read_all_rounds()} == {"t0", "t1", "t2", "t3"}
        assert pq.read_table(Path(copy.results, "digits", "values")).num_rows == 8
        assert [len(names(copy, folder)) for folder in ("trials", "rounds", "values")] == [1, 1, 1]


def test_a_published_copy_names_no_folder_of_the_machine(store: ResultsStore, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    store.write_trial({**TRIAL, "config_json": json.dumps({"data": {"root": "${DATA}/cifar10"}, "x": "${UNSET}/y"})})
    source = f"{tmp_path}/data/cifar10 (read by datasets)"
    command = f"{sys.executable} {tmp_path}/launchers/search.py --set 'method.stages=[4, 2]' --results {store.results}"
    store.write_study(
        {"command": command, "understood": {"lines": [["data", source]]}, "elsewhere": f"{tmp_path}/data2"}
    )
    study = store.publish(str(tmp_path / "copy")).read_study()
    python = Path(sys.executable).name
    assert study == {
        "schema_version": SCHEMA_VERSION,
        "command": f"{python} launchers/search.py --set 'method.stages=[4, 2]' --results results",
        "understood": {"lines": [["data", "${DATA}/cifar10 (read by datasets)"]]},
        "elsewhere": f"{tmp_path}/data2",
    }


def test_what_cannot_be_published_is_refused(store: ResultsStore, tmp_path) -> None:
    with pytest.raises(UserError, match="trials: no trial has ended"):
        store.publish(str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()
    fill(store, range(1))
    with pytest.raises(UserError, match="cannot be published into itself"):
        store.publish(store.results)
