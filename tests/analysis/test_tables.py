"""The first table of several series, and the short names of their legends."""

from pathlib import Path

import pytest
from recorded import METHODS, Record, configured

import analysis
from analysis.series import panels, short_names
from analysis.table import at_most, markdown_at_most


def test_each_series_shows_its_best_on_validation_up_to_each_power_of_two(record: Record, tmp_path: Path) -> None:
    rival = {**configured(8, 0.03), "unique_values": 16, "val_top1": 0.976, "test_top1": 0.999}  # best on test only
    record("digits", [*METHODS, rival])
    [(_, series)] = panels([analysis.load(str(tmp_path / "results" / "digits"))])
    limits, [pwfn, kmeans] = at_most(series)
    assert limits == [16, 32, 64]
    assert [cell and cell.trial_id for cell in pwfn] == ["t0", "t6", "t3"]
    assert [cell and cell.trial_id for cell in kmeans] == ["t9", None, None]
    table = markdown_at_most(series).replace("\N{PLUS-MINUS SIGN}", "+-")
    assert table.splitlines()[2:] == [
        "| series | at most 16 values | at most 32 values | at most 64 values |",
        "| :--- | ---: | ---: | ---: |",
        "| pwfn | 97.20 +-0.20 (3) | 58.00 (1, 20 values) | 97.70 +-0.10 (3, 40 values) |",
        "| kmeans | 96.10 +-0.10 (3) |  |  |",
    ]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["kmeans_cifar10", "wfn_cifar10"], ["kmeans", "wfn"]),
        (["my_a_x", "my_b_x"], ["a", "b"]),
        (["one"], ["one"]),
        (["a", "a_b"], ["a", "a_b"]),
        (["x" * 40, "y" * 10], [f"{'x' * 12}\N{HORIZONTAL ELLIPSIS}{'x' * 12}", "y" * 10]),
        (["a" * 40, f"{'a' * 20}b{'a' * 19}"], ["a" * 40, f"{'a' * 20}b{'a' * 19}"]),  # shorter ones would be equal
    ],
)
def test_short_names_leave_out_what_all_share(names: list[str], short: list[str]) -> None:
    assert short_names(names) == short
