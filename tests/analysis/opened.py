"""A report in a browser: opens it from a file and keeps what it complained about or asked a network for."""

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

PATIENCE = 120_000
"""Milliseconds; a page opens in one or two seconds where nothing else runs."""


class Opened:
    """A page of the browser with a report in it."""

    def __init__(self, browser: Browser, file: Path, address: str = "", **options: object) -> None:
        self.page: Page = browser.new_page(**options)  # type: ignore[arg-type]
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, file))
        self.page.goto(file.as_uri() + address)
        self.page.wait_for_selector("body[data-ready=yes]")

    def _note(self, url: str, file: Path) -> None:
        if url.partition("#")[0] != file.as_uri() and not url.startswith(("data:", "blob:")):
            self.complaints.append(f"requested {url}")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def address(self) -> str:
        return str(self.page.evaluate("decodeURIComponent(location.hash)"))

    def filter(self, text: str, words: str) -> None:
        """Type into the filter and wait until the figure's line begins with `words`."""
        self.page.fill("#filter", text)
        wanted = json.dumps(words)
        self.page.wait_for_function(f"document.querySelector('#front-words').textContent.startsWith({wanted})")

    def reach(self, section: str) -> None:
        """Scroll to a section whose figures are drawn when it comes near, and wait for that."""
        self.page.locator(section).scroll_into_view_if_needed()
        self.page.wait_for_function(f"document.querySelector('{section}').dataset.near === 'yes'")

    def traces(self, figure: str, meta: str | None = None) -> list[dict[str, Any]]:
        """The traces of a figure, or those of one kind."""
        script = """([id, meta]) => document.querySelector(id).data.filter((one) => meta === null || one.meta === meta)
            .map((one) => ({name: one.name, x: one.x, y: one.y, rows: one.customdata, text: one.text}))"""
        return list(self.page.evaluate(script, [figure, meta]))

    def hovered(self) -> str:
        return str(self.page.locator("#front-plot .hoverlayer").text_content())

    def overflow(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
