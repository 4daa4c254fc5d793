"""The folder of results of one study: its record, written by the trials themselves, also while others read it.

    RESULTS/STUDY/study.json                   what the study is
    RESULTS/STUDY/warm_start.json              trials of other studies that the search was told first, if any
    RESULTS/STUDY/machines.json                nodes and GPUs that failed under trials, if any
    RESULTS/STUDY/proposals/TRIAL.json         number and parameters of a trial, written before it starts
    RESULTS/STUDY/trials/TRIAL.parquet         one row
    RESULTS/STUDY/rounds/TRIAL.parquet         one row per round
    RESULTS/STUDY/values/TRIAL.parquet         the codebook
    RESULTS/STUDY/models/TRIAL.safetensors     the compressed network
    RESULTS/STUDY/checkpoints/TRIAL            where an interrupted trial continues
    RESULTS/STUDY/attempts/TRIAL.json          when the trial was started and last seen, until it has a row
    RESULTS/STUDY/baseline/KEY.safetensors     the float network, and KEY.json: its card
    RESULTS/STUDY/drivers/NUMBER.json          which processes search, or have searched (pwfn/sweep/ownership.py)
    RESULTS/STUDY/claims/NAME.TIME.json        which of them goes on with a trial that another one began

Each trial has one writer and its own files, so nothing needs a lock; who writes it is decided by who creates its
proposal, or a claim. Every write replaces a whole file, or creates one where there is none.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pwfn.errors import UserError
from pwfn.naming import COMPACTED, PointName, age, is_compacted, place_in
from pwfn.results import exclusive, files
from pwfn.results.proposal import check_proposal
from pwfn.results.publishing import without_folders
from pwfn.results.schema import (
    ROUNDS,
    SCHEMA_VERSION,
    STATES,
    TRIALS,
    VALUES,
    VERSION_KEY,
    Row,
    SchemaError,
    conform,
    to_rows,
    to_table,
)

if TYPE_CHECKING:
    from pwfn.codebook import Codebook

Result = TypeVar("Result")

_TABLES = {"trials": TRIALS, "rounds": ROUNDS, "values": VALUES}
_FOLDERS = ("proposals", *_TABLES, "models", "checkpoints", "attempts", "baseline", "drivers", "claims")
_NAME = re.compile(rf"(?!{COMPACTED})[A-Za-z0-9_][A-Za-z0-9_.=+-]*")
_READERS = 16
"""Files read at once, for stores where a file costs a round trip."""
_LISTINGS = 10
"""Times that a reader lists a folder again because a compaction ran meanwhile."""


@dataclass(frozen=True)
class ResultsStore:
    """The results of one study, in a local folder or at a URI that pyarrow opens (s3://, gs://, abfs://).

    It is only two strings and a number, so that it is cheap to send to other processes. Every method raises UserError,
    with path and reason, if the filesystem refuses.
    """

    results: str
    """Folder of all studies. A relative path is resolved when the store is made, so other processes mean the same."""
    study: str
    """Name of the study: letters, digits and `_ . = + -`."""
    patience: float = 0
    """Seconds for which an action is tried again if the filesystem refuses it, before that is an error. In a sweep this
    is not 0, so that a store that is full or unreachable for a while costs time but no trial. `create` tries once."""

    def __post_init__(self) -> None:
        """Check the name and pin a relative path."""
        if not _NAME.fullmatch(self.study):
            raise UserError(f"study {self.study!r} is not a name: letters, digits and _ . = + - are allowed")
        if "://" not in self.results:
            object.__setattr__(self, "results", files.resolve(self.results)[1])

    def create(self) -> None:
        """Make the folders of the study and try to write in them; if that fails, leave nothing behind."""
        files.make_folders(self._filesystem, [self._path(folder) for folder in _FOLDERS])

    def create_folder(self, name: str) -> list[Path]:
        """Make one folder of the study, and try to write in it; return the local folders that were not there before."""
        return files.make_folders(self._filesystem, [self._path(name)])

    def delete_empty_folders(self, made: Sequence[Path]) -> None:
        """Delete those folders again that are empty, the last one first."""
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()

    # The study

    def write_study(self, study: Mapping[str, Any]) -> None:
        """Write study.json (resolved space, seed, objectives, versions, commit) and add the schema version to it."""
        self._write("study.json", _study_card(study))

    def begin_study(self, study: Mapping[str, Any]) -> bool:
        """Write study.json unless there is one; say whether it is this one. Of several at once one succeeds."""
        return self._try(exclusive.create, "study.json", self.results, _study_card(study))

    def read_study(self) -> dict[str, Any] | None:
        """Read study.json; None if the study has none yet.

        Raises:
            UserError: a newer program wrote it.
        """
        card = self._read_json("study.json")
        version = (card or {}).get("schema_version", 0)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise UserError(
                f"{self._path('study.json')}: schema_version is {version!r}, but this program knows versions up to "
                f"{SCHEMA_VERSION}: use a newer one, or another study"
            )
        return card

    def write_warm_start(self, content: Mapping[str, Any]) -> None:
        """Write the trials of other studies that the search is told before its first proposal."""
        self._write("warm_start.json", (json.dumps(content) + "\n").encode())

    def read_warm_start(self) -> dict[str, Any] | None:
        """Read the trials of other studies that the search was told; None if there were none."""
        return self._read_json("warm_start.json")

    def write_machines(self, places: Sequence[Mapping[str, Any]]) -> None:
        """Write which nodes and GPUs failed under trials, and which are left alone."""
        self._write("machines.json", (json.dumps({"places": list(places)}, indent=2) + "\n").encode())

    def write_proposal(self, trial_id: str, proposal: Mapping[str, Any]) -> None:
        """Write number and parameters of a trial before it starts, so that it can be finished after an interruption."""
        self._write(f"proposals/{_checked_name(trial_id)}.json", (json.dumps(proposal) + "\n").encode())

    def create_proposal(self, trial_id: str, proposal: Mapping[str, Any]) -> bool:
        """Write the proposal of a trial unless there is one; say whether it is this one. One of several succeeds."""
        return self.create_record(f"proposals/{_checked_name(trial_id)}", proposal)

    def read_proposal(self, trial_id: str) -> dict[str, Any] | None:
        """Read number and parameters of a trial; None if it was not proposed.

        Raises:
            UserError: the file is not a proposal, or that of another trial.
        """
        name = f"proposals/{_checked_name(trial_id)}.json"
        proposal = self._read_json(name)
        if proposal is not None:
            try:
                check_proposal(proposal, trial_id)
            except ValueError as error:
                raise UserError(
                    f"{self._path(name)}: {error}; if nobody can mend it, delete it together with the rows of its trial"
                ) from None
        return proposal

    def proposal_ids(self) -> list[str]:
        """List the trial_ids that were proposed, in order."""
        return self.record_names("proposals")

    def read_proposals(self) -> list[dict[str, Any]]:
        """Read number and parameters of all trials of the study, ordered by trial_id."""
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(self.read_proposal, self.proposal_ids())
        return [proposal for proposal in found if proposal is not None]

    # Small files by the name of folder and file, such as `drivers/0003`

    def create_record(self, name: str, content: Mapping[str, Any]) -> bool:
        """Write a record unless there is one; say whether it is this one. Of several at the same time one succeeds.

        The content differs from what any other process would write.
        """
        encoded = (json.dumps(content) + "\n").encode()
        return self._try(exclusive.create, f"{name}.json", self.results, encoded)

    def write_record(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a record; it replaces an earlier one."""
        self._write(f"{name}.json", (json.dumps(content) + "\n").encode())

    def read_record(self, name: str) -> dict[str, Any] | None:
        """Read a record; None if there is none."""
        return self._read_json(f"{name}.json")

    def delete_record(self, name: str) -> None:
        """Delete a record, if it is there."""
        self._try(files.delete, f"{name}.json")

    def record_names(self, folder: str) -> list[str]:
        """List the names of a folder's records, in order."""
        return [name.removesuffix(".json") for name in self._try(files.names, folder, ".json")]

    def has_rows(self) -> bool:
        """Whether any trial has finished a round or ended."""
        return any(self._names(folder) for folder in ("trials", "rounds"))

    def clear_trials(self) -> None:
        """Delete what there is of trials that have finished nothing: proposals, claims, starts, and a warm start.

        Must be called only while no trial of the study runs, and none has a row.
        """
        for folder in ("proposals", "claims", "attempts", "checkpoints"):
            for name in self._try(files.names, folder, ""):
                self._try(files.delete, f"{folder}/{name}")
        self._try(files.delete, "warm_start.json")

    # Tables

    def write_trial(self, row: Row) -> None:
        """Write the row of a trial; it replaces an earlier one.

        Raises:
            SchemaError: A column or type that the closed schema does not have.
        """
        table = to_table([row], TRIALS)
        if row.get("state") not in (*STATES, None):
            raise SchemaError(f"column state takes one of {', '.join(STATES)}, but got {row['state']!r}")
        self._write_table("trials", _checked_name(row["trial_id"]), table)

    def read_trial(self, trial_id: str) -> dict[str, Any] | None:
        """Read a trial's row; None if it has not ended."""
        return next(iter(self._read_rows("trials", trial_id)), None)

    def require_trial(self, trial_id: str) -> dict[str, Any]:
        """Read the row of a trial that has ended.

        Raises:
            UserError: no such trial has ended; names the first and the last that have.
        """
        row = self.read_trial(trial_id) if _NAME.fullmatch(trial_id) else None
        if row is None:
            known = [each["trial_id"] for each in self.read_trials()]
            some = f"it has {known[0]} to {known[-1]}" if known else "it has none"
            raise UserError(f"study {self.study} in {self.results} has no finished trial {trial_id}; {some}")
        return row

    def read_points(self, trial_id: str) -> list[dict[str, Any]]:
        """Read the rows of all whole networks that a trial has left, its own row last; fewer while it runs."""
        own = self.read_trial(trial_id)
        if own is not None and own["state"] == "complete" and own["stage"] is None:
            return [own]  # most trials have no stages: nothing more to look for
        stages: list[dict[str, Any]] = []
        while (row := self.read_trial(str(PointName.read(trial_id)._replace(stage=len(stages))))) is not None:
            stages.append(row)
        return [*stages, *([] if own is None else [own])]

    def read_trials(self) -> list[dict[str, Any]]:
        """Read the rows of all points, of trials and of their earlier stages, ordered by trial_id, each once."""
        return to_rows(self._read_joined("trials", lambda name: True).sort_by("trial_id"))

    def delete_trial(self, trial_id: str) -> None:
        """Delete rows, rounds, values and network of a trial; its proposal stays, so that it can run again."""
        for folder in _TABLES:
            for name in self._names(folder):
                if name == f"{_checked_name(trial_id)}.parquet":
                    self._try(files.delete, f"{folder}/{name}")
                elif is_compacted(name):
                    table = self._read_joined(folder, name.__eq__)
                    left = table.filter(pc.field("trial_id") != trial_id)
                    if len(left) < len(table):
                        self._write_table(folder, name.removesuffix(".parquet"), left)
        self.delete_model(trial_id)
        self.delete_checkpoint(trial_id)
        self.delete_attempts(trial_id)

    def trial_ids(self) -> list[str]:
        """List the trials whose row is in a file of its own, not in a compacted file."""
        return [_trial_of(name) for name in self._names("trials") if not is_compacted(name)]

    def ended_ids(self) -> set[str]:
        """List the trials whose row is in any file, compacted ones included."""
        compacted = self._read_joined("trials", is_compacted)["trial_id"].to_pylist()
        return {*self.trial_ids(), *compacted}

    def append_round(self, trial_id: str, row: Row) -> None:
        """Add a round to the file of a trial; it replaces the same round of an earlier attempt, so none is there twice.

        Raises:
            SchemaError: A column or type that the closed schema does not have, or a missing `round`.
        """
        new = to_table([{**row, "trial_id": trial_id}], ROUNDS)
        kept = [old for old in self.read_rounds(trial_id) if old["round"] != row["round"]]
        table = pa.concat_tables([to_table(kept, ROUNDS), new]).sort_by("round")
        self._write_table("rounds", _checked_name(trial_id), table)

    def read_rounds(self, trial_id: str) -> list[dict[str, Any]]:
        """Read the rounds that a trial has finished, in order; an empty list if it has finished none."""
        return sorted(self._read_rows("rounds", trial_id), key=lambda row: int(row["round"]))

    def read_all_rounds(self) -> list[dict[str, Any]]:
        """Read the rounds of all trials, whether they have ended or not."""
        return to_rows(self._read_joined("rounds", lambda name: True))

    def write_values(self, trial_id: str, codebook: Codebook) -> None:
        """Write a trial's codebook: each value, how many weights have it and its order."""
        from pwfn.codebook import value_orders  # late: it imports torch, which readers of results do without

        orders = value_orders(codebook.values)
        columns = [[trial_id] * len(orders), codebook.values, codebook.counts, orders]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, VALUES, strict=True)]
        self._write_table("values", _checked_name(trial_id), pa.Table.from_arrays(arrays, schema=VALUES))

    # Files

    def model_path(self, trial_id: str) -> str:
        """Where a trial's compressed network lies: a local path, or the path inside the URI's filesystem."""
        return self._path(f"models/{_checked_name(trial_id)}.safetensors")

    def write_model(self, trial_id: str, content: bytes) -> None:
        """Write a trial's compressed network."""
        self._write(f"models/{_checked_name(trial_id)}.safetensors", content)

    def read_model(self, trial_id: str) -> bytes | None:
        """Read a trial's compressed network; None if it was not kept."""
        return self._read(f"models/{_checked_name(trial_id)}.safetensors")

    def delete_model(self, trial_id: str) -> None:
        """Delete a trial's compressed network, if it was kept."""
        self._try(files.delete, f"models/{_checked_name(trial_id)}.safetensors")

    def model_sizes(self) -> dict[str, int]:
        """Bytes of each compressed network that is there, by trial_id."""
        sizes = self._try(files.sizes, "models", ".safetensors")
        return {name.removesuffix(".safetensors"): size for name, size in sizes.items()}

    def write_checkpoint(self, trial_id: str, content: bytes) -> None:
        """Write the state from which a trial continues; it replaces the earlier one."""
        self._write(f"checkpoints/{_checked_name(trial_id)}", content)

    def read_checkpoint(self, trial_id: str) -> bytes | None:
        """Read the state from which a trial continues; None if there is none."""
        return self._read(f"checkpoints/{_checked_name(trial_id)}")

    def delete_checkpoint(self, trial_id: str) -> None:
        """Delete a trial's checkpoint, if it has one."""
        self._try(files.delete, f"checkpoints/{_checked_name(trial_id)}")

    def write_attempts(self, trial_id: str, attempts: Mapping[str, Any]) -> None:
        """Write when a trial was started and last seen."""
        self._write(f"attempts/{_checked_name(trial_id)}.json", json.dumps(attempts).encode())

    def read_attempts(self, trial_id: str) -> dict[str, Any] | None:
        """Read what `write_attempts` wrote; None if the trial never started, or has ended."""
        return self._read_json(f"attempts/{_checked_name(trial_id)}.json")

    def write_micro_batches(self, trial_id: str, number: int) -> None:
        """Note into how many parts a trial must split its batches after memory ran out."""
        self._write(f"attempts/{_checked_name(trial_id)}.memory.json", json.dumps({"micro_batches": number}).encode())

    def read_micro_batches(self, trial_id: str) -> int:
        """Read into how many parts a trial splits its batches; 1 if memory never ran out."""
        noted = self._read_json(f"attempts/{_checked_name(trial_id)}.memory.json")
        return 1 if noted is None else int(noted["micro_batches"])

    def delete_attempts(self, trial_id: str) -> None:
        """Delete a trial's attempts and its number of parts, when both are in its row."""
        for name in ("json", "memory.json"):
            self._try(files.delete, f"attempts/{_checked_name(trial_id)}.{name}")

    def write_baseline(self, key: str, content: bytes, card: Mapping[str, Any]) -> None:
        """Write a float network, and after it its card (its accuracies); so a card means a whole network."""
        name = f"baseline/{_checked_name(key)}"
        self._try(files.delete, f"{name}.json")
        self._write(f"{name}.safetensors", content)
        self._write(f"{name}.json", (json.dumps(card, indent=2) + "\n").encode())

    def read_baseline(self, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """Read a float network and its card; None if there is none, or only a part."""
        name = f"baseline/{_checked_name(key)}"
        card = self._read_json(f"{name}.json")
        content = None if card is None else self._read(f"{name}.safetensors")
        return None if card is None or content is None else (content, card)

    @property
    def scratch(self) -> str:
        """A path or URI beside the results for files that Ray Train shares between nodes; no result is kept there."""
        return place_in(self.results, self.study, "ray")

    def delete_scratch(self) -> None:
        """Delete the files that Ray Train left in `scratch`."""
        self._try(files.delete_folder, "ray")

    def clear_leftovers(self, ended: Collection[str]) -> None:
        """Delete what a crash left: checkpoints and attempts of trials in `ended`, and half-written files.

        Must be called only while no trial of the study runs.
        """
        for folder in ("checkpoints", "attempts", "claims"):
            for name in self._try(files.names, folder, ""):
                trial_id = name.removesuffix(".json").removesuffix(".memory")
                if (trial_id.rpartition(".")[0] if folder == "claims" else trial_id) in ended:
                    self._try(files.delete, f"{folder}/{name}")
        for folder in _FOLDERS:
            self._try(files.delete_partial, folder)

    # Compaction

    def compact(self) -> None:
        """Join the files of ended trials into one file per folder.

        Must not be called while an ended trial is written again. The joined file is written before the single ones are
        deleted, so no row is missing at any time. Until they are deleted, and after a crash in between, rows are there
        twice: `read_trials` and `analysis` take each trial once, and other readers use DISTINCT on trial_id (and round,
        value). A reader that listed the folder before may find that a file is gone; it lists the folder again.
        """
        ended = self.ended_ids()
        for folder in _TABLES:
            names = [name for name in self._names(folder) if is_compacted(name) or _trial_of(name) in ended]
            if len(names) > 1:
                table = self._read_joined(folder, set(names).__contains__)
                self._write_table(folder, f"{COMPACTED}{time.time_ns():020}", table)
                for name in names:
                    self._try(files.delete, f"{folder}/{name}")

    def publish(self, results: str) -> ResultsStore:
        """Copy study.json and the rows of ended trials, one file per folder, into another results folder.

        That is what a report needs, and small enough for a repository. Networks and checkpoints are not copied. What an
        earlier call copied there is replaced. The copy names no folder of this machine (`without_folders`).

        Raises:
            UserError: the study has no ended trial, or the target is this very folder.
        """
        copy = ResultsStore(results, self.study)
        if (copy._filesystem, copy._path("")) == (self._filesystem, self._path("")):
            raise UserError(f"{self._path('')}: cannot be published into itself")
        tables = {folder: self._read_joined(folder, lambda name: True) for folder in _TABLES}
        ended = tables["trials"]["trial_id"]
        if not len(ended):
            raise UserError(f"{self._path('trials')}: no trial has ended")
        files.make_folders(copy._filesystem, [copy._path(folder) for folder in _TABLES])
        for folder, table in tables.items():
            rows = table.filter(pc.is_in(table["trial_id"], value_set=ended))
            copy._write_table(folder, f"{COMPACTED}{0:020}", rows.sort_by("trial_id"), compression="zstd")
        if (study := self.read_study()) is not None:
            configs = {config or "" for config in tables["trials"]["config_json"].to_pylist()}
            copy.write_study(without_folders(study, configs, self.results))
        return copy

    # How it is done

    @property
    def _filesystem(self) -> Any:
        return files.resolve(self.results)[0]

    def _path(self, name: str) -> str:
        return f"{files.resolve(self.results)[1].rstrip('/')}/{self.study}/{name}"

    def _try(self, action: Callable[..., Result], name: str, *arguments: Any) -> Result:
        def attempt() -> Result:
            if self.patience:  # a sweep runs, so its folder was made: without it every file would pass for missing
                files.require_folder(self._filesystem, self._path(""))
            return action(self._filesystem, self._path(name), *arguments)

        return files.patiently(attempt, self.patience)

    def _read(self, name: str) -> bytes | None:
        return self._try(files.read, name)

    def _write(self, name: str, content: bytes) -> None:
        self._try(files.write, name, content)

    def _read_json(self, name: str) -> dict[str, Any] | None:
        content = self._read(name)
        try:
            return None if content is None else dict(json.loads(content))
        except (ValueError, TypeError) as error:
            raise UserError(f"{self._path(name)}: not a JSON object: {error}") from error

    def _write_table(self, folder: str, stem: str, table: Any, compression: str = "snappy") -> None:
        sink = pa.BufferOutputStream()
        # Most files hold a row or a few: dictionaries and statistics would be a third of each, and zstd in the place
        # of snappy doubles the time to read it.
        pq.write_table(table, sink, compression=compression, use_dictionary=False, write_statistics=False)
        self._write(f"{folder}/{stem}.parquet", sink.getvalue().to_pybytes())

    def _parse(self, folder: str, name: str, content: bytes) -> Any:
        """Parse the content of a file and convert it to the schema of its folder."""
        schema = _TABLES[folder]
        with files.reported(self._path(f"{folder}/{name}"), "read"):
            parquet = pq.ParquetFile(pa.BufferReader(content))
            written = parquet.schema_arrow
            version = int((written.metadata or {}).get(VERSION_KEY, 0))
            if version > SCHEMA_VERSION:
                raise UserError(
                    f"{self._path(f'{folder}/{name}')}: written with schema version {version}; "
                    f"this program knows versions up to {SCHEMA_VERSION}: use a newer one"
                )
            table = parquet.read(use_threads=False)
            return table if written.equals(schema) else conform(table, schema)

    def _names(self, folder: str) -> list[str]:
        """The Parquet files of a folder, oldest authority first: compacted ones by age, then those of one trial."""
        names = self._try(files.names, folder, ".parquet")
        return sorted(names, key=age)

    def _read_rows(self, folder: str, trial_id: str) -> list[dict[str, Any]]:
        name = f"{_checked_name(trial_id)}.parquet"
        content = self._read(f"{folder}/{name}")
        if content is None:
            return to_rows(self._read_joined(folder, is_compacted).filter(pc.field("trial_id") == trial_id))
        return to_rows(self._parse(folder, name, content))

    def _read_joined(self, folder: str, wanted: Callable[[str], bool]) -> Any:
        """Join a folder's files; where one vanishes meanwhile, a compaction has run, and the folder is listed again."""
        for _ in range(_LISTINGS):
            names = [name for name in self._names(folder) if wanted(name)]
            with ThreadPoolExecutor(_READERS) as pool:
                contents = dict(zip(names, pool.map(lambda name: self._read(f"{folder}/{name}"), names), strict=True))
            if None not in contents.values():
                tables = [self._parse(folder, name, content or b"") for name, content in contents.items()]
                # Combined: what sorts or writes a table of thousands of chunks takes far longer.
                return pa.concat_tables([_TABLES[folder].empty_table(), *_last_of_each_trial(tables)]).combine_chunks()
        raise UserError(f"{self._path(folder)}: cannot read: files vanish faster than they are read")


def _last_of_each_trial(tables: list[Any]) -> Iterator[Any]:
    owner = {trial_id: index for index, table in enumerate(tables) for trial_id in table["trial_id"].to_pylist()}
    for index, table in enumerate(tables):
        mine = [owner[trial_id] == index for trial_id in table["trial_id"].to_pylist()]
        yield table if all(mine) else table.filter(pa.array(mine))


def _study_card(study: Mapping[str, Any]) -> bytes:
    return (json.dumps({"schema_version": SCHEMA_VERSION, **study}, indent=2) + "\n").encode()


def _trial_of(name: str) -> str:
    return name.removesuffix(".parquet")


def _checked_name(name: str) -> str:
    """Raise ValueError if a name cannot be a file's name; trials and baselines are named by us, so it is our defect."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a file: letters, digits and _ . = + - are allowed")
    return name
