"""The closed schemas: complete, described, and strict about what a row may hold."""

import datetime as dt
from typing import Annotated, Literal, get_args

import numpy as np
import pyarrow as pa
import pytest
from pydantic import BaseModel, Field

from pwfn.config import DataConfig, MethodConfig, PwfnConfig, TrialConfig
from pwfn.results.configuration import config_columns, config_fields
from pwfn.results.schema import (
    ROUNDS,
    SCHEMA_VERSION,
    TRIALS,
    VALUES,
    VERSION_KEY,
    SchemaError,
    conform,
    to_rows,
    to_table,
)

DESIGN_COLUMNS = [
    "trial_id",
    "number",
    "study",
    "method",
    "model",
    "data",
    "seed",
    "state",
    "failure_class",
    "failure_message",
    "config_json",
    "val_top1",
    "test_top1",
    "val_top1_before",
    "float_val_top1",
    "float_test_top1",
    "unique_values",
    "unique_nonzero",
    "entropy_bits",
    "entropy_nonzero_bits",
    "sparsity",
    "coverage",
    "mean_order",
    "max_order",
    "num_weights",
    "size_bytes",
    "wall_seconds",
    "gpu_seconds",
    "started_at",
    "finished_at",
    "host",
    "versions_json",
    "commit",
]
FURTHER_COLUMNS = [
    "val_top5",
    "test_top5",
    "test_top1_before",
    "test_top5_before",
    "ensemble_test_top1",
    "recalibrated_bn",
    "rounds_done",
    "lost_seconds",
    "retries",
    "compression_ratio",
    "method.b",
    "training.lr",
    "model.name",
    "method.fractions",
]


@pytest.mark.parametrize("name", DESIGN_COLUMNS + FURTHER_COLUMNS)
def test_trials_have_the_column(name: str) -> None:
    assert TRIALS.names.count(name) == 1


@pytest.mark.parametrize("schema", [TRIALS, ROUNDS, VALUES], ids=["trials", "rounds", "values"])
def test_every_column_says_its_unit_and_meaning(schema: pa.Schema) -> None:
    for field in schema:
        assert field.metadata[b"unit"], field.name
        assert len(field.metadata[b"description"]) > 10, field.name
    assert schema.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()


def test_only_keys_are_required() -> None:
    required = {field.name for schema in (TRIALS, ROUNDS, VALUES) for field in schema if not field.nullable}
    assert required == {"trial_id", "round", "value"}


def test_a_configuration_fills_exactly_the_columns_made_for_it() -> None:
    methods = [method() for method in get_args(MethodConfig)]
    assert isinstance(methods[0], PwfnConfig)
    configs = [TrialConfig(data=DataConfig(name="digits"), method=method) for method in methods]
    assert {name for config in configs for name in config_columns(config)} == {field.name for field in config_fields()}
    columns = config_columns(configs[0])
    assert columns["method.b"] == 7
    assert columns["method.fractions"][-1] == 1.0
    row = to_rows(to_table([{"trial_id": "a", **columns}], TRIALS))[0]
    assert {name: row[name] for name in columns} == columns


class _First(BaseModel):
    name: Literal["first"] = "first"
    rate: float = 1.0
    """Shared."""
    steps: tuple[int, ...] = ()


class _Second(BaseModel):
    name: Literal["second"] = "second"
    rate: Annotated[float, Field(gt=0)] | None = None
    clip: Literal[1, 2] = 1


class _Clash(BaseModel):
    name: Literal["clash"] = "clash"
    rate: str = ""


class _Both(BaseModel):
    method: Annotated[_First | _Second, Field(discriminator="name")]
    extra: dict[str, float] = {}


class _Clashing(BaseModel):
    method: _First | _Clash


class _Unknown(BaseModel):
    odd: bytes = b""


def test_members_of_a_union_share_their_columns() -> None:
    types = {field.name: field.type for field in config_fields(_Both)}
    assert types == {
        "method.name": pa.string(),
        "method.rate": pa.float64(),
        "method.steps": pa.list_(pa.int64()),
        "method.clip": pa.int64(),
    }


def test_one_name_with_two_types_is_refused() -> None:
    with pytest.raises(TypeError, match=r"method\.rate is both double and string; a column has one type"):
        config_fields(_Clashing)


def test_a_type_without_a_column_is_refused() -> None:
    with pytest.raises(TypeError, match=r"odd: no column holds .*bytes"):
        config_fields(_Unknown)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"accuracy": 0.5}, "column accuracy is not in the closed schema"),
        ({"val_top1": "0.5"}, "column val_top1 takes double, but got '0.5' of type str"),
        ({"unique_values": 3.0}, r"column unique_values takes int64, but got 3.0 of type float"),
        ({"unique_values": True}, "column unique_values takes int64, but got True of type bool"),
        ({"unique_values": 2**63}, "column unique_values takes int64"),
        ({"recalibrated_bn": 1}, "column recalibrated_bn takes bool, but got 1 of type int"),
        ({"method.fractions": "0.5"}, "column method.fractions takes list<item: double>"),
        ({"method.fractions": [0.5, "1"]}, "column method.fractions takes double, but got '1'"),
        ({"started_at": dt.datetime(2024, 1, 1)}, r"column started_at takes timestamp\[us\]"),
        ({"trial_id": None}, "column trial_id is the key and must be given"),
        ({"entropy": 2}, "^trials: column entropy is not in the closed schema"),
        ({"state": 2}, "^trials: column state takes string, but got 2 of type int"),
    ],
)
def test_a_row_that_does_not_fit_names_the_column(row: dict[str, object], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        to_table([{"trial_id": "a", **row}], TRIALS)


@pytest.mark.parametrize("numbers", [3.0, {"sigma": "small"}, {"sigma": True}])
def test_what_a_method_records_of_its_own_are_numbers_by_name(numbers: object) -> None:
    with pytest.raises(SchemaError, match=r"^rounds: column method_numbers takes "):
        to_table([{"trial_id": "a", "round": 0, "method_numbers": numbers}], ROUNDS)


def test_a_methods_own_numbers_come_back_by_name() -> None:
    rows = [
        {"trial_id": "a", "round": 0, "method_numbers": {"temperature": 0.5, "pull": 2}},
        {"trial_id": "a", "round": 1},
    ]
    read = to_rows(to_table(rows, ROUNDS))
    assert [row["method_numbers"] for row in read] == [{"temperature": 0.5, "pull": 2.0}, {}]


def test_pwfns_numbers_of_version_1_go_where_those_of_all_methods_are() -> None:
    older = pa.table({"trial_id": ["a", "a"], "round": [0, 1], "radius_end": [2.0, None], "sigma_q50": [0.1, 0.2]})
    rows = to_rows(conform(older, ROUNDS))
    assert [row["method_numbers"] for row in rows] == [{"radius_end": 2.0, "sigma_q50": 0.1}, {"sigma_q50": 0.2}]


def test_numpy_scalars_and_zones_are_taken() -> None:
    noon_in_delhi = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))
    row = {
        "trial_id": "a",
        "unique_values": np.int32(7),
        "val_top1": np.float32(0.5),
        "sparsity": 0,
        "recalibrated_bn": np.True_,
        "started_at": noon_in_delhi,
    }
    read = to_rows(to_table([row], TRIALS))[0]
    assert {name: read[name] for name in row} == row
    assert read["started_at"].utcoffset() == dt.timedelta(0)
    assert read["finished_at"] is None


def test_a_file_of_another_version_is_brought_to_this_one() -> None:
    older = pa.table({"trial_id": ["a"], "unique_values": pa.array([7], pa.int32()), "gone": [1]})
    table = conform(older, TRIALS)
    assert table.schema.equals(TRIALS, check_metadata=True)
    assert table["unique_values"].to_pylist() == [7]
    assert table["val_top1"].to_pylist() == [None]


def test_a_field_that_took_a_single_value_in_another_version_has_a_list_of_it() -> None:
    older = pa.table({"trial_id": ["a", "b"], "method.later_lr_ratio": [0.7, None]})
    assert conform(older, TRIALS)["method.later_lr_ratio"].to_pylist() == [[0.7], None]
