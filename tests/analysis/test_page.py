"""The page in a real browser, from a file, without a network: it opens, filters, sorts, and shows a trial."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from recorded import METHODS, SMALL, Record, fill

import analysis

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs a browser: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page, and everything that it complained about or asked a network for."""

    def __init__(self, browser: Browser, file: Path, **options: object) -> None:
        self.page: Page = browser.new_page(**options)  # type: ignore[arg-type]
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, file))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def _note(self, url: str, file: Path) -> None:
        if url != file.as_uri() and not url.startswith("data:"):
            self.complaints.append(f"requested {url}")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def axis(self) -> str:
        return str(self.page.evaluate("document.querySelector('#front-plot').layout.xaxis.title.text"))

    def hovered(self) -> str:
        return str(self.page.locator("#front-plot .hoverlayer").text_content())

    def overflow(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def report(record: Record, tmp_path: Path, rows: object = METHODS) -> Path:
    fill(record("digits", rows), ["t0", "t1", "t6", "t9"])
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    return tmp_path / "out" / "report.html"


def test_it_opens_and_every_control_works(browser: Browser, record: Record, tmp_path: Path) -> None:
    opened = Opened(browser, report(record, tmp_path))
    page = opened.page
    assert opened.text("h1") == "digits_cnn on digits"
    assert opened.text(".answer").startswith("40 distinct values are the fewest that keep pwfn within 0.5 points")
    assert opened.text("#front-words").startswith("12 of 12 trials pass. 1 have no result to draw.")

    page.fill("#filter", "kmeans")  # words
    page.wait_for_function("document.querySelector('#front-words').textContent.startsWith('3 of 12')")
    assert page.locator("#trials-table tbody tr").count() == 3
    page.click("#reset")
    page.fill("#filter", "b<=4, unique_values>20")  # fields and metrics
    page.wait_for_function("document.querySelector('#front-words').textContent.startsWith('3 of 12')")
    assert page.locator("#trials-table tbody tr th").all_inner_texts() == ["t3", "t4", "t5"]
    page.click("#reset")
    page.uncheck("[name=state][value=complete]")
    assert page.locator("#trials-table tbody tr th").all_inner_texts() == ["t7", "t8"]
    page.click("#reset")
    assert page.locator("#trials-table tbody tr").count() == 12

    assert opened.axis() == "distinct weight values (log scale)"
    page.select_option("#x", "sparsity")
    assert opened.axis() == "zeros"
    page.select_option("#x", "unique_values")
    page.select_option("#y", "test_loss")
    page.check("#attainment")
    page.select_option("#y", "quality")
    names = page.evaluate("document.querySelector('#front-plot').data.map((trace) => trace.name)")
    assert [name for name in names if name and "runs" in name][:3] == [
        "pwfn: 25 % of 3 runs", "pwfn: 50 % of 3 runs", "pwfn: 75 % of 3 runs",
    ]  # fmt: skip

    heads = page.locator("#trials-table thead button")
    heads.filter(has_text=re.compile("^values$")).click()
    cells = page.locator("#trials-table tbody tr th").all_inner_texts()
    assert (cells[0], cells[-1]) == ("t7", "t8")  # 11 values first, a trial without a count last
    heads.filter(has_text=re.compile("^values$")).click()
    assert page.locator("#trials-table tbody tr th").all_inner_texts()[0] == "t3"
    ledger = page.locator("table", has_text="Ledger")
    ledger.locator("thead button", has_text="series").click()
    assert ledger.locator("tbody tr td:nth-child(2)").all_inner_texts() == ["kmeans", "pwfn"]
    assert opened.complaints == []
    page.close()


def test_a_click_opens_the_trial(browser: Browser, record: Record, tmp_path: Path) -> None:
    opened = Opened(browser, report(record, tmp_path), viewport={"width": 1200, "height": 900})
    page = opened.page
    point = page.evaluate(
        """() => {
            const plot = document.querySelector("#front-plot"), box = plot.getBoundingClientRect();
            const {xaxis, yaxis} = plot._fullLayout;
            return [box.x + xaxis._offset + xaxis.c2p(16), box.y + yaxis._offset + yaxis.c2p(0.977)];
        }"""
    )
    page.mouse.move(*point)
    page.wait_for_selector("#front-plot .hoverlayer text")
    assert "t0" in opened.hovered()
    assert "mean of 3 seeds" in opened.hovered()
    page.mouse.click(*point)
    page.wait_for_selector("#trial-panel:not([hidden])")
    assert opened.text("#trial-title") == "Trial t0 of pwfn: digits_cnn on digits"
    assert opened.text("#trial-command") == "pwfn train --study digits --trial t0"
    assert "Other seeds of the same configuration: t1, t2." in opened.text("#trial-words")
    assert "method.b" in opened.text("#trial-fields")
    assert opened.text("#codebook-plot + *, #trial h4 >> nth=1").startswith("Codebook: 4 values")
    accuracies = page.evaluate("document.querySelector('#rounds-plot').data.map((trace) => trace.y)")
    assert accuracies == [[0.98, 0.98, 0.98], [0.95, 0.96, 0.97], [5, 10, 15]]
    counts = page.evaluate(
        "document.querySelector('#codebook-plot').data.filter((t) => t.name).map((t) => [t.name, t.x, t.y])"
    )
    assert counts == [
        ["zero (50 %)", [0], [3]],
        ["order 1 (33 %)", [-0.5, 0.25], [1, 1]],
        ["order 2 (17 %)", [0.375], [1]],
    ]
    page.click("#trials-table .open >> text=t8")  # failed: its message is text, not markup
    assert "Failure: nan: loss is <NaN> in round 3." in opened.text("#trial-words")
    assert "not recorded" in opened.text("#rounds-plot")
    assert opened.complaints == []
    page.close()


def test_a_brush_filters_the_whole_page(browser: Browser, record: Record, tmp_path: Path) -> None:
    opened = Opened(browser, report(record, tmp_path))
    page = opened.page
    page.locator("#parallel-canvas").scroll_into_view_if_needed()
    box = page.locator("#parallel-canvas").bounding_box()
    assert box is not None
    first = page.evaluate("document.querySelector('#parallel-words').textContent")
    assert first.startswith("9 of 9 trials of pwfn are kept")
    page.mouse.move(box["x"] + 62, box["y"] + box["height"] - 20)  # the lower end of the first axis: method.b
    page.mouse.down()
    page.mouse.move(box["x"] + 62, box["y"] + box["height"] - 40, steps=4)
    page.mouse.up()
    assert opened.text("#parallel-words").startswith("3 of 9 trials of pwfn are kept")
    assert set(page.locator("#trials-table tbody tr th").all_inner_texts()) == {"t0", "t1", "t2"}
    page.mouse.click(box["x"] + 62, box["y"] + 200)
    assert opened.text("#parallel-words").startswith("9 of 9 trials of pwfn are kept")
    assert opened.complaints == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_either_scheme(
    scheme: str, browser: Browser, record: Record, tmp_path: Path
) -> None:
    opened = Opened(browser, report(record, tmp_path), viewport={"width": 390, "height": 800}, color_scheme=scheme)
    opened.page.click(".open >> nth=0")
    assert opened.overflow() <= 0
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    opened.page.emulate_media(media="print")
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.page.locator("#front-controls").is_visible()
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
    opened.page.emulate_media(media="screen")
    opened.page.wait_for_timeout(300)
    assert opened.complaints == []
    opened.page.close()


@pytest.mark.parametrize("rows", [[], [{"state": "failed"}], SMALL[:1], SMALL], ids=["none", "failed", "one", "small"])
def test_few_trials_open_without_a_complaint(rows: object, browser: Browser, record: Record, tmp_path: Path) -> None:
    store = record("digits", rows)
    (Path(store.results) / "digits" / "study.json").unlink()
    analysis.write_report(str(tmp_path / "results" / "digits"), str(tmp_path / "out"))
    opened = Opened(browser, tmp_path / "out" / "report.html")
    assert "study.json is missing: objectives are assumed" in opened.text(".notes")
    for name in ("entropy_bits", "sparsity"):
        opened.page.select_option("#x", name)
    for button in opened.page.locator(".open").all()[:3]:
        button.click()
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
    names = page.evaluate("document.querySelector('#front-plot').data.map((trace) => trace.name)")
    assert "published by others (test)" in names
    page.select_option("#panel", "all, as the difference to float")
    assert page.locator("#y").input_value() == "quality_loss"
    names = page.evaluate("document.querySelector('#front-plot').data.map((trace) => trace.name)")
    assert {"front of pwfn · pwfn", "front of pwfn · kmeans", "front of resnet · pwfn"} <= set(names)
    assert opened.complaints == []
    page.close()
