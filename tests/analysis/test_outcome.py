"""The figure of what the points chosen on validation reach on the test images."""

from pathlib import Path

from matplotlib.figure import Figure
from recorded import SMALL, Record

from analysis import front, load, write_report
from analysis.outcome import draw_outcome
from analysis.series import Series, panels


def draw(folder: Path) -> tuple[Figure | None, Series]:
    [(title, [one])] = panels([load(str(folder))])
    return draw_outcome([one], title, "subtitle"), one


def test_it_shows_the_front_at_its_test_accuracy(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    figure, one = draw(tmp_path / "results" / "digits")
    assert figure is not None
    [line] = [each for each in figure.axes[0].lines if each.get_marker() == "o"]
    members = front(one.points, one.objectives).sort_values("unique_values")
    assert list(line.get_xdata()) == members["unique_values"].tolist()
    assert list(line.get_ydata()) == members["test_top1"].tolist()
    low, high = figure.axes[0].get_ylim()
    assert high > members["float_test_top1"].max()


def test_points_that_lost_too_much_are_counted(record: Record, tmp_path: Path) -> None:
    many = [{"unique_values": 60 + n, "val_top1": 0.981 + 0.0001 * n, "test_top1": 0.97} for n in range(9)]
    record("digits", [*SMALL, *many, {"unique_values": 2, "val_top1": 0.2, "test_top1": 0.15, "state": "complete"}])
    figure, _ = draw(tmp_path / "results" / "digits")
    assert figure is not None
    assert any("Not shown: 1 below" in text.get_text() for text in figure.texts)


def test_without_a_tested_point_there_is_none(record: Record, tmp_path: Path) -> None:
    record("digits", [{**row, "test_top1": None} for row in SMALL])
    assert draw(tmp_path / "results" / "digits")[0] is None
    paths = write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    assert not [path for path in paths if "-test" in path]
