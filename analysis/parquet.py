"""Reads a folder of Parquet files as one table, while others write it: thousands of files, broken ones named."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.storage import Folder
from pwfn.naming import age, is_compacted

KNOWN_VERSIONS = (1, 2)
"""The schema versions that this report can read as they are."""
VERSION_KEY = b"pwfn.schema_version"
_MAGIC = b"PAR1"
_SCHEMA_KEY = b"ARROW:schema"
_VERSION_BYTES = tuple(VERSION_KEY + b"\x18\x01" + str(version).encode() + b"\0" for version in KNOWN_VERSIONS)
"""Key and value as a Parquet footer holds them (Thrift's compact protocol). Asking DuckDB reads every footer twice."""
_READERS = 16
_LISTINGS = 10
"""How often a folder is listed again because files vanish while a compaction runs."""


class _UnusualError(Exception):
    """Some file is not as expected: each must be looked at by itself."""


def read_table(folder: Folder, notes: list[str], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read every trial's rows once, of all columns or of those that are there among `columns`.

    A trial's own file is newer than a compacted one. What cannot be read and other schema versions go to `notes`.
    """
    names = _listing(folder)
    try:
        frame = _read_at_once(folder, names, columns) if _is_local(folder) and names else None
    except (duckdb.Error, OSError, _UnusualError):
        frame = None
    return _newest(_read_one_by_one(folder, notes, columns) if frame is None else frame)


def _listing(folder: Folder) -> list[str]:
    return sorted(folder.files(".parquet"), key=age)


def _is_local(folder: Folder) -> bool:
    return bool(folder.filesystem.type_name == "local")


def _read_at_once(folder: Folder, names: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Let DuckDB read all files: more than twice as fast as one by one. Anything unusual is a reason to doubt."""
    files = [f"{folder.path}/{name}" for name in names]
    _require_equal_columns(files)
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = false")  # readers sort
        there = connection.read_parquet(files[0]).columns
        wanted = [name for name in columns if name in there] if columns else there
        if "trial_id" not in wanted:
            raise _UnusualError
        chosen = ", ".join(f'"{name}"' for name in wanted)
        rows = f"SELECT {chosen}, parse_filename(filename) AS _file FROM read_parquet($files, filename = true)"
        return _to_frame(connection.sql(rows, params={"files": files}).to_arrow_table())


def _require_equal_columns(files: Sequence[str]) -> None:
    """Doubt files of several versions, or of other columns than the first: DuckDB would take only those of the first.

    A study that went on with `--force-resume` has such files, if a metric was added or a field of the configuration.
    """
    one_of_each = {_version_and_schema(Path(file)): file for file in files}
    versions = {version for version, _ in one_of_each}
    schemas = [pq.read_schema(file) for file in one_of_each.values()]  # equal but for their descriptions, it may be
    if len(versions) > 1 or not all(schema.equals(schemas[0]) for schema in schemas):
        raise _UnusualError


def _version_and_schema(path: Path) -> tuple[bytes, bytes]:
    """Find the known version that a file bears, and Arrow's schema in base64, without parsing the footer.

    A file that does not begin and end as Parquet does is unusual, and so is one whose footer lacks either.
    """
    content = path.read_bytes()
    found = [version for version in _VERSION_BYTES if version in content]
    schema = content.rpartition(_SCHEMA_KEY)[2].partition(b"\0")[0]  # up to the end of Thrift's struct
    if not found or _SCHEMA_KEY not in content or not content[:4] == content[-4:] == _MAGIC:
        raise _UnusualError
    return found[0], schema


def _read_one_by_one(folder: Folder, notes: list[str], columns: Sequence[str]) -> pd.DataFrame:
    """Read each file by itself: any filesystem, any version; what cannot be read is named."""
    for _ in range(_LISTINGS):
        names = _listing(folder)
        with ThreadPoolExecutor(_READERS) as pool:
            contents = list(pool.map(folder.read, names))
        if None not in contents:
            break
    tables, versions = [], []
    for name, content in zip(names, contents, strict=True):
        try:
            parquet = pq.ParquetFile(pa.BufferReader(content or b""))
            there = parquet.schema_arrow.names
            if "trial_id" not in there:
                raise ValueError("it has no column trial_id")
            versions.append(int((parquet.schema_arrow.metadata or {}).get(VERSION_KEY, 0)))
            wanted = [column for column in columns if column in there] or None
            table = parquet.read(wanted, use_threads=False)
            tables.append(table.append_column("_file", pa.array([name] * len(table), pa.string())))
        except (pa.ArrowException, OSError, ValueError) as error:
            kind = folder.path.rpartition("/")[2]
            notes.append(f"{kind}/{name} cannot be read and is left out: {' '.join(str(error).split())}")
    _note_versions(folder, versions, notes)
    return _joined(tables)


def _joined(tables: list[pa.Table]) -> pd.DataFrame:
    """Join tables whose columns may differ. Together: a thousand conversions of one row would take most of the time."""
    if not tables:
        return pd.DataFrame({"trial_id": [], "_file": []})
    try:
        return _to_frame(pa.concat_tables(tables, promote_options="permissive"))
    except pa.ArrowException:  # one name with types that no type holds both of
        return pd.concat([_to_frame(table) for table in tables], ignore_index=True)


def _to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert and keep whole numbers whole: pandas would take float64 where some are absent, and round seeds."""
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def _note_versions(folder: Folder, found: list[int], notes: list[str]) -> None:
    kind = folder.path.rpartition("/")[2]
    for version in sorted(set(found) - set(KNOWN_VERSIONS)):
        age = "older" if version < KNOWN_VERSIONS[0] else "newer"
        notes.append(
            f"{found.count(version)} files of {kind} have the {age} schema version {version} (this report knows "
            f"{' and '.join(map(str, KNOWN_VERSIONS))}): columns they lack are empty"
        )


def _newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of the last file that a trial is in: its own, or else the last compacted one."""
    names = sorted(frame["_file"].unique(), key=age)
    if names and is_compacted(names[0]):
        place = frame["_file"].map({name: index for index, name in enumerate(names)})
        frame = frame[place == place.groupby(frame["trial_id"]).transform("max")]
    return frame.drop(columns="_file").reset_index(drop=True)
