"""The report: its files, tables and figure, for whatever a folder holds."""

import io
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from recorded import METHODS, SMALL, Record, Rows
from rich.console import Console

import analysis
from analysis.errors import AnalysisError
from analysis.figure import draw
from analysis.series import panels
from analysis.window import axis_names

FIGURES = ["front.png", "front.svg"]
TEST_FIGURES = ["front-test.png", "front-test.svg"]
TABLES = ["report.html", "front.md", "front.tex", "front.csv", "trials.csv"]


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_every_file_is_written_and_says_the_front(record: Record, tmp_path: Path) -> None:
    store = record("digits", SMALL)
    store.append_round("running", {"round": 0})
    out = tmp_path / "out"
    paths = analysis.write_report(str(tmp_path / "results" / "digits"), str(out))
    assert names(paths) == [*FIGURES, *TEST_FIGURES, *TABLES]
    assert sorted(path.name for path in out.iterdir()) == sorted(names(paths))
    front = pd.read_csv(out / "front.csv")
    assert front["trial_id"].tolist() == ["t0", "t1", "t3", "t4"]
    assert front["test_minus_float"].round(3).tolist() == [-0.085, -0.025, -0.005, -0.015]
    trials = pd.read_csv(out / "trials.csv")
    assert trials["on_front"].tolist() == [True, True, False, True, True, False, False, False]
    assert {"method.b", "config_json", "failure_class"} <= set(trials)
    with Image.open(out / "front.png") as image:
        assert image.size[0] == 1720
    svg = (out / "front.svg").read_text()
    assert "<svg" in svg


def test_a_seed_is_written_to_the_last_digit(record: Record, tmp_path: Path) -> None:
    seeds = [9186631186191598714, None, 3270874016360402270]
    record("digits", [{**SMALL[n], "seed": seed} for n, seed in enumerate(seeds)])
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    trials = pd.read_csv(tmp_path / "out" / "trials.csv", dtype=str).fillna("")
    assert trials["seed"].tolist() == ["9186631186191598714", "", "3270874016360402270"]
    assert trials["number"].tolist() == ["0", "1", "2"]


def test_the_markdown_is_this(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL[:3])
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "front.md").read_text() == (
        "# digits_cnn on digits\n\n"
        "study digits · 3 complete · 3 of 10 trials ended\n\n"
        "No finished trial is within 1 point of the float network on validation; the best, with 17 values, is 1.50 "
        "points below (trial t1).\n\n"
        "## Front of digits\n\n"
        "| values | covered | validation | test | test vs float | entropy | order | zeros | size | smaller | trial |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | :--- |\n"
        "| 4 | - | 90.00 % | 89.00 % | -8.50 | - | - | - | - | - | t0 |\n"
        "| 17 | - | 97.00 % | 95.00 % | -2.50 | - | - | - | - | - | t1 |\n\n"
        "Hypervolume 0.7962, at most 1; reference point: validation top-1 0.00 %, distinct weight values 4096; "
        "ideal: validation top-1 100.00 %, distinct weight values 1; counts on a log2 scale.\n\n"
        "## Notes\n\n"
        "- digits: 3 of 3 trials with a result have no rounds file\n"
        "- digits: 3 of 3 complete trials have no codebook file\n"
    )


def test_the_latex_is_this(record: Record, tmp_path: Path) -> None:
    record("a_study", SMALL[:2])
    analysis.write_report(str(tmp_path / "results" / "a_study"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "front.tex").read_text() == (
        "\\begin{table}\n"
        "  \\centering\n"
        "  \\caption{digits\\_cnn on digits, study a\\_study}\n"
        "  \\begin{tabular}{rrrrrrrrrrl}\n"
        "    \\toprule\n"
        "    values & covered & validation & test & test vs float & entropy & order & zeros & size & smaller "
        "& trial \\\\\n"
        "    \\midrule\n"
        "    4 & - & 90.00 \\% & 89.00 \\% & $-$8.50 & - & - & - & - & - & t0 \\\\\n"
        "    17 & - & 97.00 \\% & 95.00 \\% & $-$2.50 & - & - & - & - & - & t1 \\\\\n"
        "    \\bottomrule\n"
        "  \\end{tabular}\n"
        "\\end{table}\n"
    )


def test_latex_of_nothing_is_a_comment(record: Record, tmp_path: Path) -> None:
    record("digits", [])
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "front.tex").read_text() == "% no trials yet, study digits: no trial is complete yet\n"


def test_methods_have_fronts_of_their_own_and_seeds_are_means(record: Record, tmp_path: Path) -> None:
    record("digits", METHODS)
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    front = pd.read_csv(tmp_path / "out" / "front.csv")
    assert front["method"].tolist() == ["pwfn", "pwfn", "kmeans"]
    assert front["num_seeds"].tolist() == [3, 3, 3]
    assert front["val_top1"].round(4).tolist() == [0.977, 0.987, 0.962]
    text = (tmp_path / "out" / "front.md").read_text()
    assert "## Front of pwfn" in text
    assert "## Front of kmeans" in text
    assert "This beats the best baseline" in text


def test_the_figure_says_what_each_mark_is(record: Record, tmp_path: Path) -> None:
    below = {"val_top1": 0.1, "unique_values": 30}
    record("digits", [*SMALL, below])
    study = analysis.load(str(tmp_path / "results" / "digits"))
    [(title, series)] = panels([study])
    figure = draw(series, title, "subtitle", "footnote")
    assert figure.texts[0].get_text() == "digits_cnn on digits: accuracy against distinct weight values"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "float network, validation (98.5 %)",
        "float network, test (97.5 %)",
        "complete, dominated (2)",
        "pruned (1)",
        "failed (2, without a result)",
        "below 88.3 % (1)",
        "front, validation top-1",
        "front, test top-1",
    ]
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "54 values: 0.5 points below float\nvalidation 98.0 %, test 97.0 %"
    ]
    ticks = [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]
    assert ticks == ["2", "4", "8", "16", "32", "64"]
    markers = {line.get_marker() for line in axes.lines}
    assert {"o", "v", "x", r"$\downarrow$"} <= markers


def test_the_terminal_shows_the_front(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    console = Console(file=io.StringIO(), width=140)
    for table in analysis.front_tables(str(tmp_path / "results" / "digits")):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "digits_cnn on digits · study digits" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("│")] == ["4", "17", "54", "54"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        SMALL[:1],
        [{"state": "failed"}],
        [{"state": "pruned", "val_top1": 0.5, "unique_values": 8}],
        [{"val_top1": 0.9, "unique_values": 1}],
        [{"val_top1": 0.0, "unique_values": 5000, "float_val_top1": None}],
    ],
    ids=["none", "one", "failed", "pruned", "one-value", "zero-accuracy"],
)
def test_few_trials_make_a_report(rows: Rows, record: Record, tmp_path: Path) -> None:
    record("digits", rows)
    paths = analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    tested = any("test_top1" in row for row in rows)
    assert names(paths) == [*FIGURES, *(TEST_FIGURES if tested else []), *TABLES]
    assert (tmp_path / "out" / "front.png").stat().st_size > 10_000


def test_other_objectives_choose_the_axes(record: Record, tmp_path: Path) -> None:
    objectives = {"test_top5": "maximize", "entropy_bits": "minimize", "sparsity": "maximize"}
    assert axis_names(objectives) == ("entropy_bits", "test_top5")
    rows: Rows = [{"test_top5": 0.9 + 0.01 * n, "entropy_bits": 2.0 + n, "sparsity": 0.5} for n in range(4)]
    record("digits", rows, {"objectives": objectives})
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    assert len(pd.read_csv(tmp_path / "out" / "front.csv")) == 4
    text = (tmp_path / "out" / "front.md").read_text()
    assert "| test top-5 | values |" in text
    assert "entropy (bits per weight) 12.00" in text


def test_studies_on_the_same_model_and_data_share_a_figure(record: Record, tmp_path: Path) -> None:
    record("pwfn", SMALL)
    record("wfn", [{**row, "unique_values": 9} for row in SMALL])
    record("resnet", SMALL, model="resnet18", data="ImageNet 1k/val")
    folders = [str(tmp_path / "results" / name) for name in ("pwfn", "wfn", "resnet")]
    paths = analysis.write_report(folders, str(tmp_path / "out"))
    places = ("front-digits_cnn-on-digits", "front-resnet18-on-ImageNet-1k-val")
    assert names(paths)[:8] == [
        f"{place}{end}" for place in places for end in (".png", ".svg", "-test.png", "-test.svg")
    ]
    text = (tmp_path / "out" / "front.md").read_text()
    assert "studies pwfn, wfn" in text
    assert text.count("## Front of ") == 3
    assert set(pd.read_csv(tmp_path / "out" / "front.csv")["study"]) == {"pwfn", "wfn", "resnet"}


def test_studies_with_other_objectives_are_refused(record: Record, tmp_path: Path) -> None:
    record("pwfn", SMALL)
    record("other", SMALL, {"objectives": {"val_top1": "maximize", "entropy_bits": "minimize"}})
    folders = [str(tmp_path / "results" / name) for name in ("pwfn", "other")]
    with pytest.raises(
        AnalysisError, match=r"studies pwfn and other have different objectives .* report them one by one"
    ):
        analysis.write_report(folders, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_two_studies_of_one_name_are_refused(record: Record, tmp_path: Path) -> None:
    record("pwfn", SMALL)
    folder = str(tmp_path / "results" / "pwfn")
    with pytest.raises(AnalysisError, match="two studies are named pwfn and cannot be told apart in one report"):
        analysis.write_report([folder, folder], str(tmp_path / "out"))


def test_a_copied_study_goes_by_its_folder(record: Record, tmp_path: Path) -> None:
    for name in ("here", "there"):
        record(name, METHODS, {"study": "digits", "objectives": {"val_top1": "maximize", "unique_values": "minimize"}})
    folders = [str(tmp_path / "results" / name) for name in ("here", "there")]
    analysis.write_report(folders, str(tmp_path / "out"))
    text = (tmp_path / "out" / "front.md").read_text()
    assert "## Front of here · pwfn" in text
    assert "## Front of there · pwfn" in text


def test_the_same_results_give_the_same_bytes(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    for out in ("a", "b"):
        paths = analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / out))
    for name in names(paths):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_that_cannot_be_written_is_said(record: Record, tmp_path: Path) -> None:
    record("digits", SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(AnalysisError, match=r"/file/out/front\.png: cannot write: Not a directory"):
        analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "file" / "out"))


def test_five_thousand_trials_are_reported_quickly(record: Record, tmp_path: Path) -> None:
    record("digits", [])
    rng = np.random.default_rng(0)
    study = analysis.load(str(tmp_path / "results" / "digits"))
    trials = pd.DataFrame(
        {
            "val_top1": rng.random(5000), "test_top1": rng.random(5000), "unique_values": rng.integers(2, 999, 5000),
            "state": rng.choice(["complete", "pruned", "failed"], 5000), "model": "m", "data": "d",
        }
    )  # fmt: skip
    trials = trials.reindex(columns=study.trials.columns).astype(study.trials.dtypes)
    trials = trials.assign(trial_id=[f"t{n}" for n in range(5000)], method="pwfn")
    trials["method.b"] = rng.integers(3, 9, 5000)
    big = analysis.Study("big", {}, study.objectives, trials, 0)
    start = time.perf_counter()
    analysis.write_report(big, str(tmp_path / "out"))
    assert time.perf_counter() - start < 15
    assert (tmp_path / "out" / "front.svg").stat().st_size < 5_000_000
    assert (tmp_path / "out" / "report.html").stat().st_size < 6_000_000


def test_published_rows_are_drawn_for_the_same_model_and_data_only(record: Record, tmp_path: Path) -> None:
    rows = [
        {"val_top1": 0.68, "test_top1": 0.67, "unique_values": 40},
        {"val_top1": 0.66, "test_top1": 0.65, "unique_values": 20},
    ]
    record("resnet", rows, model="resnet18", data="ILSVRC2012")
    record("digits", rows)
    labels = ["WFN delta 0.0075", "WFN delta 0.01", "WFN delta 0.015"]
    for name, expected in (("resnet", labels), ("digits", [])):
        [(title, series)] = panels([analysis.load(str(tmp_path / "results" / name))])
        figure = draw(series, title, "", "")
        axes = figure.axes[0]
        assert [text.get_text() for text in axes.texts if text.get_text().startswith("WFN")] == expected
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("published by others, test" in legend) == bool(expected)
        assert (axes.get_xlim()[1] > 193) == bool(expected)
