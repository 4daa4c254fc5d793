"""The closed schemas of a results folder: what every column means, in which type and unit.

A schema is closed: a file has all of its columns and no others, and each but the key may be null. So a folder of files
is one table for pandas, DuckDB and Polars. The metadata of a column has its `unit` and `description`; the metadata of a
file has the version of the schema.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa

from pwfn.metrics import METRICS, WHOLE
from pwfn.results.configuration import config_fields, describe

SCHEMA_VERSION = 2
"""Raised with every change of a column's name, type or meaning. Readers fill a column that a file lacks with null."""
VERSION_KEY, TABLE_KEY = b"pwfn.schema_version", b"pwfn.table"

STATES = ("complete", "pruned", "failed")
"""How a trial ended."""

Row = Mapping[str, Any]

TEXT, FLAG, COUNT, NUMBER = pa.string(), pa.bool_(), pa.int64(), pa.float64()
NAMES = pa.list_(TEXT)
NAMED_NUMBERS = pa.map_(TEXT, NUMBER)
TIME = pa.timestamp("us")
"""Times are UTC, without a time zone in the type, so that readers without a database of time zones agree on them."""


COLUMNS_OF_VERSION_1 = (
    "radius_start", "radius_end", "sigma_q05", "sigma_q25", "sigma_q50", "sigma_q75", "sigma_q95",
)  # fmt: skip
"""Columns of a round that hold, in files of version 1, what `method_numbers` holds now."""


class SchemaError(ValueError):
    """A row does not fit its closed schema: a defect of the program that wrote it, not of a user's input."""


def _metric_columns(known: str) -> Iterator[Any]:
    """Columns of all metrics that a finished round has, or of all that an ended trial has, and of the float network."""
    for metric in METRICS.values():
        if known == "end" or metric.known == "round":
            kind = COUNT if metric.unit in WHOLE else NUMBER
            yield describe(metric.name, kind, metric.unit, metric.description)
            if metric.has_float:
                meaning = f"The same of the float network it started from: {metric.label}."
                yield describe(f"float_{metric.name}", kind, metric.unit, meaning)


_TRIAL_COLUMNS = (
    describe("trial_id", TEXT, "text", "The trial, or a point of it (0007-s0); names its files.", key=True),
    describe("stage", COUNT, "index", "Stage of the training that the network comes from, from 0; null: no stages."),
    describe("number", COUNT, "index", "Position in the order in which the trials were proposed, from 0."),
    describe("study", TEXT, "text", "Name of the study."),
    describe("method", TEXT, "text", "Method of compression."),
    describe("model", TEXT, "text", "Name of the network."),
    describe("data", TEXT, "text", "Name of the data set."),
    describe("seed", COUNT, "integer", "Seed of everything random in the trial but the split."),
    describe("state", TEXT, "text", "How the trial ended: complete, pruned (metrics of its last round) or failed."),
    describe(
        "failure_class",
        TEXT,
        "text",
        "nan, oom, timeout, user, error; of machines lost, device, network, memory, loader, replicas.",
    ),
    describe("failure_message", TEXT, "text", "The failure in words; null if there was none."),
    describe("config_json", TEXT, "JSON", "The whole configuration; enough to run the trial again."),
    *_metric_columns("end"),
    describe("val_top1_before", NUMBER, "fraction", "Top-1 validation accuracy before the last snap."),
    describe("test_top1_before", NUMBER, "fraction", "Top-1 test accuracy before the last snap, after training."),
    describe("test_top5_before", NUMBER, "fraction", "Top-5 test accuracy before the last snap, after training."),
    describe(
        "ensemble_test_top1", NUMBER, "fraction", "Top-1 test accuracy of the mean over posterior draws, if asked."
    ),
    describe("num_weights", COUNT, "weights", "Weights that are compressed."),
    describe("left_out", NAMES, "list of text", "Parameters that are not, kind by kind, with their share of all."),
    describe("num_broken_images", COUNT, "images", "Images that could not be read and were left out, of those drawn."),
    describe("recalibrated_bn", FLAG, "yes/no", "BatchNorm statistics were estimated again before measuring."),
    describe("untreated_layers", NAMES, "list of text", "Layers that the method could only round to nearest."),
    describe("rounds_done", COUNT, "rounds", "Rounds that were finished."),
    describe("micro_batches", COUNT, "parts", "Parts that each batch was split into, to fit in memory."),
    describe("retries", COUNT, "starts", "Starts after the first one."),
    describe("lost_seconds", NUMBER, "seconds", "Elapsed time of work that was lost and done again."),
    describe("train_seconds", NUMBER, "seconds", "Time of training in the finished rounds."),
    describe("data_seconds", NUMBER, "seconds", "Part of train_seconds in which training waited for batches."),
    describe("started_at", TIME, "UTC", "When the trial first started."),
    describe("finished_at", TIME, "UTC", "When the trial ended."),
    describe("host", TEXT, "text", "Machine of rank 0."),
    describe("versions_json", TEXT, "JSON", "Versions of Python and the packages that compute."),
    describe("commit", TEXT, "text", "Commit of the program; null outside a checkout."),
)

_ROUND_COLUMNS = (
    describe("trial_id", TEXT, "text", "Identifier of the trial.", key=True),
    describe("number", COUNT, "index", "Position in the order in which the trials were proposed, from 0."),
    describe("study", TEXT, "text", "Name of the study."),
    describe("method", TEXT, "text", "Method of compression."),
    describe("round", COUNT, "index", "Round, from 0.", key=True),
    describe("num_rounds", COUNT, "rounds", "Rounds that the trial plans."),
    describe("stage", COUNT, "index", "Stage of the training that the round belongs to, from 0."),
    describe("fraction", NUMBER, "fraction", "Share of the weights to be fixed after this round."),
    describe("num_fixed", COUNT, "weights", "Weights that are fixed after this round."),
    *_metric_columns("round"),
    describe("val_top1_before", NUMBER, "fraction", "Top-1 validation accuracy after training, before fixing."),
    describe("val_top5_before", NUMBER, "fraction", "Top-5 validation accuracy after training, before fixing."),
    describe("untreated_layers", NAMES, "list of text", "Layers that the method could only round to nearest."),
    describe("method_numbers", NAMED_NUMBERS, "numbers by name", "What the method records of its own: PWFN's sigmas."),
    describe("train_loss", NUMBER, "nats", "Mean training loss of the round's steps, penalties included."),
    describe("train_seconds", NUMBER, "seconds", "Time of training."),
    describe("data_seconds", NUMBER, "seconds", "Part of train_seconds in which training waited for batches."),
    describe("fix_seconds", NUMBER, "seconds", "Time of clustering and fixing."),
    describe("eval_seconds", NUMBER, "seconds", "Time of measuring, recalibration included."),
    describe("finished_at", TIME, "UTC", "When the round ended."),
)

_VALUE_COLUMNS = (
    describe("trial_id", TEXT, "text", "Identifier of the trial.", key=True),
    describe("value", pa.float32(), "weight", "A value that weights share.", key=True),
    describe("count", COUNT, "weights", "Weights that have it."),
    describe("order", COUNT, "powers of two", "Powers of two that sum to it; 0 for zero."),
)


def _schema(table: str, columns: Iterable[Any]) -> Any:
    return pa.schema(columns, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()})


_CORE = {column.name for column in _TRIAL_COLUMNS}
TRIALS = _schema("trials", [*_TRIAL_COLUMNS, *(field for field in config_fields() if field.name not in _CORE)])
"""One row per trial: the columns above, then one for each scalar field of the configuration."""
ROUNDS = _schema("rounds", _ROUND_COLUMNS)
"""One row per round of a trial."""
VALUES = _schema("values", _VALUE_COLUMNS)
"""One row per distinct value of a trial's weights: its codebook."""


def to_table(rows: Sequence[Row], schema: Any) -> Any:
    """Build a table with exactly the columns of `schema`; a column that a row lacks becomes null.

    Raises:
        SchemaError: A column that is not in the schema, a value of another type, or a key that is missing.
    """
    table = schema.metadata[TABLE_KEY].decode()
    for row in rows:
        for name in row:
            if name not in schema.names:
                raise SchemaError(f"{table}: column {name} is not in the closed schema")
    try:
        columns = [pa.array([_checked(row.get(field.name), field) for row in rows], field.type) for field in schema]
    except SchemaError as error:
        raise SchemaError(f"{table}: {error}") from None
    return pa.Table.from_arrays(columns, schema=schema)


def to_rows(table: Any) -> list[dict[str, Any]]:
    """Turn a table back into rows that `to_table` accepts: times get their zone again, named numbers are mappings."""
    times = [field.name for field in table.schema if field.type == TIME]
    named = [field.name for field in table.schema if field.type == NAMED_NUMBERS]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in times:
            row[name] = row[name] and row[name].replace(tzinfo=dt.UTC)
        for name in named:
            row[name] = dict(row[name] or ())
    return rows


def conform(table: Any, schema: Any) -> Any:
    """Convert a table of another version to `schema`: columns that it lacks become null, unknown ones are dropped.

    The columns that version 1 had for PWFN's own numbers go where the numbers of all methods are now. A column of
    single values, of a field that takes several now, becomes one of lists with one member.

    Raises:
        pyarrow.ArrowInvalid: A column cannot be converted.
    """
    if "method_numbers" in schema.names and "method_numbers" not in table.schema.names:
        table = _with_named_numbers(table)
    columns = [
        _converted(table[field.name], field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _converted(column: Any, kind: Any) -> Any:
    if pa.types.is_list(kind) and not pa.types.is_nested(column.type):
        return pa.chunked_array([[value if value is None else [value] for value in column.to_pylist()]], kind)
    return column.cast(kind)


def _with_named_numbers(table: Any) -> Any:
    names = [name for name in COLUMNS_OF_VERSION_1 if name in table.schema.names]
    rows = table.select(names).to_pylist()
    numbers = [[(name, value) for name, value in row.items() if value is not None] for row in rows]
    return table.append_column("method_numbers", pa.array(numbers, NAMED_NUMBERS))


def _checked(value: Any, field: Any) -> Any:
    """Return `value` as pyarrow takes it for `field`, or raise SchemaError naming the column."""
    if value is None:
        if not field.nullable:
            raise SchemaError(f"column {field.name} is the key and must be given")
        return None
    if pa.types.is_map(field.type):
        if not isinstance(value, Mapping):
            raise _wrong_type(field, value)
        item = pa.field(field.name, field.type.item_type)
        return [(str(name), _checked(number, item)) for name, number in value.items()]
    if pa.types.is_list(field.type):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _wrong_type(field, value)
        return [_checked(item, field.type.field(0).with_name(field.name)) for item in value]
    if not _ACCEPTS[field.type](value):
        raise _wrong_type(field, value)
    return value.astimezone(dt.UTC).replace(tzinfo=None) if field.type == TIME else value


def _wrong_type(field: Any, value: Any) -> SchemaError:
    return SchemaError(f"column {field.name} takes {field.type}, but got {value!r} of type {type(value).__name__}")


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


_ACCEPTS: dict[Any, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    FLAG: lambda value: isinstance(value, bool | np.bool_),
    COUNT: _is_count,
    NUMBER: _is_number,
    pa.float32(): _is_number,
    TIME: lambda value: isinstance(value, dt.datetime) and value.tzinfo is not None,
}
"""Which values each type accepts. A time must have its time zone: without one, hosts read different times."""
