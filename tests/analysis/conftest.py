"""Recorded studies, written by the store as a sweep would; a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from recorded import Record, Rows, write_study

from pwfn.results.store import ResultsStore

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Write a study's rows below `tmp_path/results`."""

    def write(name: str, rows: Rows, card: dict[str, Any] | None = None, **columns: Any) -> ResultsStore:
        return write_study(tmp_path / "results", name, rows, card, **columns)

    return write


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs a browser: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
