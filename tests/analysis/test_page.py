"""The page in a real browser, from a file, without a network: it answers, filters, compares, and keeps its state."""

import base64
import datetime as dt
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opened import Opened
from playwright.sync_api import Browser
from recorded import METHODS, SHOWN, SMALL, Record, fill, write_study

import analysis
from analysis.looks import DARK, LIGHT, MARKERS

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MACHINES = {
    "places": [
        {"place": "node-1 gpu0", "left_alone": True,
         "failures": [{"trial_id": "t3", "failure_class": "device", "message": "ECC error"}] * 2},
    ]
}  # fmt: skip
PUBLISHED = Path(__file__).parents[2] / "docs" / "results"
LINES = [["data", "digits of scikit-learn"], ["classes", "10, numbers of the data"]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of one study with every kind of point, alone in a folder as if it had been mailed."""
    folder = tmp_path_factory.mktemp("page")
    rows = [
        {**row, "host": f"node-{number % 2}", "retries": int(number == 3), "lost_seconds": 60.0 * (number == 3),
         "started_at": START + dt.timedelta(seconds=60 * number),
         "finished_at": START + dt.timedelta(seconds=60 * number + 100)}
        for number, row in enumerate(SHOWN)
    ]  # fmt: skip
    card = {
        "study": "digits", "objectives": {"val_top1": "maximize", "unique_values": "minimize"}, "num_trials": 20,
        "understood": {"cnn": {"lines": LINES}},
        "forced": [{"at": "2026-01-01T10:00:00", "differences": ["the package torch"]}],
    }  # fmt: skip
    store = write_study(folder / "results", "digits", rows, card)
    fill(store, ["t0", "t1", "t6", "t9"])
    (folder / "results" / "digits" / "machines.json").write_text(json.dumps(MACHINES))
    analysis.write_report(str(folder / "results" / "digits"), str(folder / "out"))
    (folder / "mailed").mkdir()
    shutil.copy(folder / "out" / "report.html", folder / "mailed" / "report.html")
    return folder / "mailed" / "report.html"


@pytest.fixture(scope="module")
def shared(browser: Browser, report: Path) -> Iterator[Opened]:
    opened = Opened(browser, report, viewport={"width": 1300, "height": 900}, accept_downloads=True)
    opened.reach("#fields")  # What it draws is above the table of trials: it would move a button during a click.
    yield opened
    opened.page.close()


@pytest.fixture
def opened(shared: Opened) -> Iterator[Opened]:
    """The one page of this file, as it is when it is opened."""
    shared.page.evaluate("location.hash = '#'")
    shared.filter("", "15 points of 14 trials.")
    shared.complaints.clear()
    yield shared
    assert shared.complaints == []


def content(file: Path, name: str = "data") -> Any:
    """What the page carries in one of its scripts of data."""
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]+)</script>', file.read_text())
    assert found is not None
    return json.loads(zlib.decompress(base64.b64decode(found[1])))


CHECK_PAIRS = """(pairs) => pairs.map(([across, up]) => {
    for (const [id, value] of [["x", across], ["y", up]]) document.getElementById(id).value = value;
    document.getElementById("x").dispatchEvent(new Event("change"));
    document.getElementById("y").dispatchEvent(new Event("change"));
    const plot = document.querySelector("#front-plot"), {xaxis, yaxis} = plot._fullLayout, marks = [];
    for (const layer of plot.querySelectorAll(".scatterlayer .trace")) {
        const trace = layer.__data__[0].trace;
        if (!["points", "edge"].includes(trace.meta)) continue;
        for (const mark of layer.querySelectorAll("path.point")) {
            if (getComputedStyle(mark).display === "none") continue;
            const [, left, top] = /translate\\(([-\\d.]+),([-\\d.]+)\\)/.exec(mark.getAttribute("transform"));
            const inside = left > -1 && left < xaxis._length + 1 && top > -1 && top < yaxis._length + 1;  // pixels
            marks.push([trace.meta, trace.customdata[mark.__data__.i], xaxis.p2d(Number(left)), yaxis.p2d(Number(top)),
                inside]);
        }
    }
    return {across, up, marks, words: plot.layout.annotations.map((each) => each.text).join(),
            ends: [xaxis, yaxis].map((axis) => axis.range.map((end) => axis.r2c ? axis.r2l(end) : end)),
            logs: [xaxis, yaxis].map((axis) => axis.type === "log")};
})"""


def check_pairs(opened: Opened, file: Path, pairs: list[tuple[str, str]]) -> None:
    """For each pair of axes: every point that has both numbers is there, at its numbers or as an arrow at the edge."""
    carried = content(file)
    trials, series = carried["trials"], carried["series"]
    shown = opened.page.evaluate("document.querySelector('#panel').value")
    rows = [row for row, index in enumerate(trials["series"]) if series[index]["panel"] == shown]

    def number(axis: str, row: int) -> float | None:
        name, _, kind = axis.partition("_error") if axis.endswith("_error") else axis.partition("_loss")
        found = trials["metrics"][name][row]
        if found is None or name == axis:
            return found
        if axis.endswith("_error"):
            return 1 - found
        float_ = trials["metrics"][f"float_{name}"][row]
        return None if float_ is None else found - float_

    for result in opened.page.evaluate(CHECK_PAIRS, pairs):
        pair = (result["across"], result["up"])
        expected = {row for row in rows if all(number(axis, row) is not None for axis in pair)}
        visible = [mark for mark in result["marks"] if mark[4]]
        assert {mark[1] for mark in visible} == expected, pair
        assert bool(visible) or "has both numbers" in result["words"], pair
        for _, row, *place, _ in (mark for mark in visible if mark[0] == "points"):
            for axis, found, (low, high), is_log in zip(pair, place, result["ends"], result["logs"], strict=True):
                if is_log:
                    assert found == pytest.approx(number(axis, row), rel=0.02), (pair, row)
                else:
                    assert found == pytest.approx(number(axis, row), abs=0.005 * abs(high - low)), (pair, row)


def axes_of(opened: Opened) -> list[str]:
    return list(opened.page.evaluate("[...document.querySelector('#x').options].map((each) => each.value)"))


def test_the_answer_comes_first(opened: Opened) -> None:
    assert opened.text("h1") == "digits_cnn on digits"
    assert opened.text(".answer").startswith("40 distinct values are the fewest that keep pwfn within 0.5 points")
    assert opened.text("#front .warning >> nth=0") == (
        "Continued after code, data or packages had changed (--force-resume): digits."
    )
    assert opened.text("#front .warning >> nth=1") == "Failed under trials, so left alone: node-1 gpu0 (digits)."
    assert opened.text("#front-title") == "Test top-1 against distinct weight values"
    assert [row.split("\t") for row in opened.page.locator("table.first tr").all_inner_texts()] == [
        ["series", "≤ 16", "≤ 32", "≤ 64"],
        ["pwfn", "97.20 ±0.20 (3)", "96.50 (1, 30 values)", "97.70 ±0.10 (3, 40 values)"],
        ["kmeans", "96.10 ±0.10 (3)", "", ""],
    ]
    assert opened.page.evaluate("document.querySelector('#front-plot').getBoundingClientRect().bottom") < 900
    assert "scikit-learn" in opened.text("#understood")
    assert opened.text("#machines table >> nth=1").split("\n")[-1].split("\t")[:4] == [
        "digits",
        "node-1 gpu0",
        "2",
        "yes",
    ]


def test_each_axis_has_its_own_window(opened: Opened, report: Path) -> None:
    axes = axes_of(opened)
    assert {"val_top1", "val_top1_error", "test_top1_loss", "unique_values"} <= set(axes)
    check_pairs(opened, report, list(zip(axes, [*axes[1:], axes[0]], strict=True)))


def test_collapsed_trials_do_not_squash_and_ties_are_counted(opened: Opened) -> None:
    page = opened.page
    window = page.evaluate("document.querySelector('#front-plot').layout.yaxis.range")
    assert window[0] > 0.9, "one trial has 58 %, one 94 %"
    assert "2 lie outside the window" in opened.text("#front-words")
    assert [trace["text"] for trace in opened.traces("#front-plot", "ties")] == [["\N{MULTIPLICATION SIGN}2"]]
    page.check("#whole")
    assert page.evaluate("document.querySelector('#front-plot').layout.yaxis.range")[0] < 0.58
    page.uncheck("#whole")
    page.select_option("#y", "test_top1_error")
    assert opened.text("#front-title") == "Test error, top-1 against distinct weight values"
    assert opened.traces("#front-plot", "edge") == []


def test_every_control_works(opened: Opened) -> None:
    page = opened.page
    opened.filter("kmeans", "3 of 15")
    assert page.locator("#trials-table tbody tr").count() == 3
    page.click("#reset")
    page.uncheck("[name=state][value=complete]")
    assert page.locator("#trials-table tbody tr th").all_inner_texts() == ["t7", "t8"]
    page.click("#reset")
    assert page.locator("#trials-table tbody tr").count() == 15
    page.select_option("#y", "val_top1")
    page.check("#attainment")
    names = [trace["name"] for trace in opened.traces("#front-plot")]
    assert [name for name in names if name and "runs" in name][:3] == [
        "pwfn: 25 % of 3 runs", "pwfn: 50 % of 3 runs", "pwfn: 75 % of 3 runs",
    ]  # fmt: skip
    heads = page.locator("#trials-table thead button")
    heads.filter(has_text=re.compile("^values$")).click()
    cells = page.locator("#trials-table tbody tr th").all_inner_texts()
    assert (cells[0], cells[-1]) == ("t12", "t8")  # 10 values first, a trial without a count last
    heads.filter(has_text=re.compile("^values$")).click()
    assert page.locator("#trials-table tbody tr th").all_inner_texts()[0] == "t3"
    ledger = page.locator("table", has_text="Ledger")
    ledger.locator("thead button", has_text="series").click()
    assert ledger.locator("tbody tr td:nth-child(2)").all_inner_texts() == ["kmeans", "pwfn"]


@pytest.mark.parametrize(
    ("text", "num_passing"),
    [
        ("b<=4, unique_values>20", 3),
        ("method.b = 3..5", 7),
        ("values <= 16", 8),  # a heading of a table
        ("distinct weight values <= 16", 8),  # a label
        ("test > 97 %", 5),
        ("validation top-1 >= 0.97", 8),
        ("state != complete", 2),
        ("trial=t12-s0", 1),
        ("host = node-1", 7),
    ],
)  # fmt: skip
def test_the_filter_knows_names_labels_and_units(text: str, num_passing: int, opened: Opened) -> None:
    opened.filter(text, f"{num_passing} of 15 points of 14 trials pass.")
    assert opened.text("#filter-words") == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("foo>3", "no field or metric is called foo"),
        ("uniqe_values>3", "near are unique_values"),
        ("b>=abc", "abc is not a number"),
        ("b=3..", "is not a number"),
        ("test>90", "test_top1 is a share from 0 to 1: write 90 % or 0.9"),
        ("values<3 kB", "kB is not a unit of unique_values"),
        ("state>complete", "only = and != compare it"),
        ("state=lost", "state is never lost; it is complete, pruned, failed"),
        ("zzz", "no trial has this in its name"),
        ("b>", "nothing stands behind >"),
    ],
)
def test_the_filter_says_what_it_did_not_understand(text: str, problem: str, opened: Opened) -> None:
    opened.filter(f"{text}, kmeans", "3 of 15")
    assert f"Not understood, so left out: “{text}” (" in opened.text("#filter-words")
    assert problem in opened.text("#filter-words")
    assert opened.page.get_attribute("#filter", "aria-invalid") == "true"


def test_the_address_holds_what_was_chosen(opened: Opened) -> None:
    page = opened.page
    opened.filter("b<=4", "6 of 15")
    page.select_option("#y", "val_top1")
    page.uncheck("[name=state][value=failed]")
    page.click("#trials-table .open >> text=t0")
    assert opened.address() == "#y=val_top1&filter=b<=4&hide=failed&trial=digits/t0"
    page.evaluate("location.hash = '#x=test_top1&y=val_top1_loss&filter=kmeans&trial=digits/t9&with=digits/t0&whole=1'")
    page.wait_for_function("document.querySelector('#front-words').textContent.startsWith('3 of 15')")
    assert opened.text("#front-title") == "Validation top-1 minus float against test top-1"
    assert opened.text("#trial-title") == "Trials t9 and t0"
    assert page.is_checked("#whole")
    page.evaluate("location.hash = '#x=nonsense&trial=nobody/t0&filter=kmeans'")
    page.wait_for_function("document.querySelector('#x').value === 'unique_values'")
    assert page.locator("#trial-panel").is_hidden()


def test_two_trials_stand_side_by_side(opened: Opened) -> None:
    page = opened.page
    page.click("#trials-table .open >> text=t0")
    page.fill("#with", "t6")
    page.press("#with", "Enter")
    assert opened.text("#trial-title") == "Trials t0 and t6"
    assert opened.text("#trial-fields caption") == "Settings that differ"
    settings = [row.split("\t") for row in page.locator("#trial-fields tbody tr").all_inner_texts()]
    assert settings == [["method.b", "3", "5"], ["training.lr", "0.01", "0.02"]]
    names = [trace["name"] for trace in opened.traces("#rounds-plot")]
    assert names[1::3] == ["t0, after fixing", "t6, after fixing"]
    shares = [trace for trace in opened.traces("#codebook-plot") if trace["name"]]
    assert [trace["name"] for trace in shares] == ["t0: 4 values", "t6: 4 values"]
    assert shares[0]["y"] == pytest.approx([1 / 6, 3 / 6, 1 / 6, 1 / 6])
    page.click("#trials-table .open >> text=t9", modifiers=["Shift"])
    assert opened.text("#trial-title") == "Trials t0 and t9"
    assert ["method.name", "pwfn", "kmeans"] in [
        row.split("\t") for row in page.locator("#trial-fields tbody tr").all_inner_texts()
    ]
    page.fill("#with", "nobody")
    page.press("#with", "Enter")
    assert opened.text("#with-words") == "No trial nobody."


def test_a_click_opens_the_trial(opened: Opened) -> None:
    page = opened.page
    point = page.evaluate(
        """() => {
            scrollTo({top: 0, behavior: "instant"});
            const plot = document.querySelector("#front-plot"), box = plot.getBoundingClientRect();
            const {xaxis, yaxis} = plot._fullLayout;
            return [box.x + xaxis._offset + xaxis.d2p(16), box.y + yaxis._offset + yaxis.d2p(0.97)];
        }"""
    )
    page.mouse.move(*point)
    page.wait_for_selector("#front-plot .hoverlayer text")
    assert "t0" in opened.hovered()
    assert "mean of 3 seeds: 97.20 %" in opened.traces("#front-plot", "front")[0]["text"][1]
    page.mouse.click(*point)
    page.wait_for_selector("#trial-panel:not([hidden])")
    assert opened.text("#trial-title") == "Trial t0 of pwfn: digits_cnn on digits"
    assert opened.text("#trial-command") == "pwfn train --study digits --trial t0"
    assert "Other seeds of the same configuration: t1, t2." in opened.text("#trial-words")
    assert [trace["y"] for trace in opened.traces("#rounds-plot")] == [
        [0.98, 0.98, 0.98],
        [0.95, 0.96, 0.97],
        [5, 10, 15],
    ]
    counts = [(trace["name"], trace["x"], trace["y"]) for trace in opened.traces("#codebook-plot") if trace["name"]]
    assert counts == [
        ("zero (50 %)", [0], [3]), ("order 1 (33 %)", [-0.5, 0.25], [1, 1]), ("order 2 (17 %)", [0.375], [1]),
    ]  # fmt: skip
    page.click("#trials-table .open >> text=t8")  # failed: its message is text, not markup
    assert "Failure: nan: loss is <NaN> in round 3." in opened.text("#trial-words")
    assert "not recorded" in opened.text("#rounds-plot")
    page.click("#trials-table .open >> text='t12'")
    assert "Other points of the same training: t12-s0 (30 values)." in opened.text("#trial-words")


def test_all_rounds_all_slots_and_two_settings_are_drawn(opened: Opened) -> None:
    page = opened.page
    opened.reach("#curves")
    curves = opened.traces("#curves-plot")
    assert {row for trace in curves for row in trace["rows"] if row is not None} == {0, 1, 6, 12}
    assert curves[0]["y"][:4] == [0.95, 0.96, 0.97, None]
    opened.reach("#search")
    bars = opened.traces("#timeline-plot")
    assert [(trace["name"], len(trace["x"])) for trace in bars] == [("complete", 12), ("pruned", 1), ("failed", 1)]
    assert opened.text("#timeline-words").endswith("1 started again (↻); 60.0 s of work were lost.")
    hover = page.evaluate(
        "document.querySelector('#timeline-plot').data[0].hovertext.find((each) => each.includes('t3<'))"
    )
    assert "on node-1" in hover
    assert "lost on node-1 gpu0: device" in hover
    opened.reach("#fields")
    assert len(opened.traces("#contour-plot")) == 2
    page.select_option("#contour-x", "training.lr")
    page.select_option("#contour-y", "training.lr")
    assert "it takes two settings" in opened.text("#contour-plot")
    page.locator("#parallel-canvas").scroll_into_view_if_needed()
    box = page.locator("#parallel-canvas").bounding_box()
    assert box is not None
    assert opened.text("#parallel-words").startswith("12 of 12 points of 11 trials of pwfn are kept")
    page.mouse.move(box["x"] + 62, box["y"] + box["height"] - 20)  # the lower end of the first axis: method.b
    page.mouse.down()
    page.mouse.move(box["x"] + 62, box["y"] + box["height"] - 40, steps=4)
    page.mouse.up()
    assert opened.text("#parallel-words").startswith("3 of 12")
    assert set(page.locator("#trials-table tbody tr th").all_inner_texts()) == {"t0", "t1", "t2"}
    assert "brush=method.b:" in opened.address()
    page.mouse.click(box["x"] + 62, box["y"] + 200)
    assert opened.text("#parallel-words").startswith("12 of 12")


def test_files_are_saved_from_the_mailed_page_alone(opened: Opened, report: Path) -> None:
    assert [each.name for each in report.parent.iterdir()] == ["report.html"]
    written = report.parents[1] / "out"
    for name in ("front.md", "front.tex", "front.csv", "trials.csv"):
        with opened.page.expect_download() as saved:
            opened.page.click(f"[data-file='{name}']")
        assert Path(saved.value.path()).read_text() == (written / name).read_text()
    opened.filter("kmeans", "3 of 15")
    with opened.page.expect_download() as saved:
        opened.page.click("#selection")
    lines = Path(saved.value.path()).read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [[f"t{number}", "digits", "kmeans"] for number in (9, 10, 11)]


def test_a_phone_in_the_dark_shows_the_figure_on_its_first_screen(browser: Browser, report: Path) -> None:
    opened = Opened(browser, report, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = opened.page
    bottom = page.evaluate(
        """() => {
            const plot = document.querySelector("#front-plot"), {t, h} = plot._fullLayout._size;
            return plot.getBoundingClientRect().top + t + h;
        }"""
    )
    assert bottom < 844, "axes and marks are on the first screen"
    page.click(".open >> nth=0")
    assert opened.overflow() <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.emulate_media(media="print")
    page.wait_for_timeout(300)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#front-controls").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert opened.complaints == []
    page.close()


def test_without_script_it_is_readable(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".answer").inner_text().startswith("40 distinct values")
    assert page.locator("img.picture").is_visible()
    assert page.locator("table.first").is_visible()
    assert page.locator("caption", has_text="Front of pwfn").is_visible()
    assert page.locator("#understood").inner_text().count("scikit-learn") == 1
    assert not page.locator("#front-controls").is_visible()
    assert page.locator("#front-plot").bounding_box() is None, "no gap where a figure would be"
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[], [{"state": "failed"}], SMALL[:1], SMALL], ids=["none", "failed", "one", "small"])
def test_few_trials_open_without_a_complaint(rows: object, browser: Browser, record: Record, tmp_path: Path) -> None:
    store = record("digits", rows)
    (Path(store.results) / "digits" / "study.json").unlink()
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    opened = Opened(browser, tmp_path / "out" / "report.html")
    assert "study.json is missing: objectives are assumed" in opened.text(".notes")
    axes = axes_of(opened)
    for name in axes:
        opened.page.select_option("#x", name)
    for button in opened.page.locator(".open").all()[:3]:
        button.click()
    for section in ("#curves", "#search", "#fields"):
        opened.reach(section)
    assert opened.complaints == []
    opened.page.close()


def test_models_and_studies_are_compared_in_one_page(browser: Browser, record: Record, tmp_path: Path) -> None:
    record("pwfn", METHODS)
    record("resnet", [{**row, "unique_values": 170} for row in SMALL[:4]], model="resnet18", data="imagenet")
    folders = [str(tmp_path / "results" / name) for name in ("pwfn", "resnet")]
    analysis.write_report(folders, str(tmp_path / "out"))
    opened = Opened(browser, tmp_path / "out" / "report.html")
    page = opened.page
    comparison = page.locator("#comparison tbody tr")
    assert [row.split("\t")[:2] for row in comparison.all_inner_texts()] == [
        ["digits_cnn on digits", "pwfn · pwfn"],
        ["digits_cnn on digits", "pwfn · kmeans"],
        ["resnet18 on imagenet", "resnet · pwfn"],
    ]
    assert not page.locator("caption", has_text="Published by others").is_visible()
    page.select_option("#panel", "resnet18 on imagenet")
    assert page.locator("caption", has_text="Published by others").is_visible()
    assert "published by others (test)" in [trace["name"] for trace in opened.traces("#front-plot")]
    page.select_option("#panel", "all, as the difference to float")
    assert page.locator("#y").input_value() == "test_top1_loss"
    names = {trace["name"] for trace in opened.traces("#front-plot", "front")}
    assert names == {"pwfn · pwfn", "pwfn · kmeans (baseline)", "resnet · pwfn"}
    page.click("#comparison ~ * .open >> text=/^t3$/ >> nth=0")
    page.fill("#with", "resnet/t1")
    page.press("#with", "Enter")
    assert opened.text("#trial-title") == "Trials pwfn/t3 and resnet/t1"
    assert page.locator("#trial-metrics thead th").all_inner_texts() == ["", "t3", "t1"]
    assert opened.complaints == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 390])
def test_fourteen_series_leave_the_ticks_free(width: int, browser: Browser, record: Record, tmp_path: Path) -> None:
    names = [f"study{letter}_digits" for letter in "abcdefghijklmn"]
    for place, name in enumerate(names):
        record(name, [{**row, "val_top1": row["val_top1"] - place / 200} for row in SMALL[:4]])
    analysis.write_report([str(tmp_path / "results" / name) for name in names], str(tmp_path / "out"))
    opened = Opened(browser, tmp_path / "out" / "report.html", viewport={"width": width, "height": 844})
    title, legend, tick = (
        opened.page.locator(f"#front-plot {part}").first.bounding_box()
        for part in (".xtitle", ".legend", ".xtick text")
    )
    assert tick["y"] + tick["height"] <= title["y"] + 1
    assert title["y"] + title["height"] <= legend["y"]
    looks = opened.page.evaluate(
        """document.querySelector("#front-plot").data.filter((one) => one.meta === "front")
            .map((one) => [one.marker.color, one.marker.symbol])"""
    )
    assert len({tuple(look) for look in looks}) == 14
    opened.page.close()


@pytest.mark.slow
@pytest.mark.parametrize("study", sorted(PUBLISHED.glob("*/*/study.json")), ids=lambda card: card.parent.name)
def test_every_pair_of_axes_of_a_published_study_is_right(study: Path, browser: Browser, tmp_path: Path) -> None:
    analysis.write_report(str(study.parent), str(tmp_path))
    opened = Opened(browser, tmp_path / "report.html", viewport={"width": 1300, "height": 900})
    axes = axes_of(opened)
    assert len(axes) > 15
    check_pairs(opened, tmp_path / "report.html", [(across, up) for across in axes for up in axes])
    assert opened.complaints == []
    opened.page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme: str, browser: Browser, report: Path) -> None:
    script = os.environ.get("PWFN_AXE")
    if script is None:
        pytest.skip("needs axe-core: npm install axe-core, and PWFN_AXE=.../node_modules/axe-core/axe.min.js")
    opened = Opened(browser, report, viewport={"width": 1300, "height": 900}, color_scheme=scheme)
    for section in ("#curves", "#search", "#fields"):
        opened.reach(section)
    opened.page.click(".open >> nth=0")
    opened.filter("foo>3", "15 points")
    opened.page.add_script_tag(path=script)
    found = opened.page.evaluate("axe.run().then((result) => result.violations)")
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert serious == []
    opened.page.close()


def test_twelve_series_look_different_with_and_without_colour() -> None:
    assert len(set(LIGHT)) == len(set(DARK)) == len(set(MARKERS)) == 12

    def contrast(colour: str, ground: str) -> float:
        lights = []
        for each in (colour, ground):
            parts = [int(each[at : at + 2], 16) / 255 for at in (1, 3, 5)]
            linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
            lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
        return (max(lights) + 0.05) / (min(lights) + 0.05)

    assert min(contrast(colour, "#ffffff") for colour in LIGHT) >= 3
    assert min(contrast(colour, "#14171b") for colour in DARK) >= 3
