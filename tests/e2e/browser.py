"""A real browser: the machine's own Chromium, driven by Playwright, which brings none itself."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# No sandbox, because tests run as root in containers; nothing of the browser's own goes to the network.
_ARGUMENTS = [
    f"--{name}"
    for name in (
        "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync",
    )
]  # fmt: skip
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser that QUARRY_CHROMIUM names, else the installed one; skip where there is none."""
    if "QUARRY_TRACED" in os.environ:
        # What pages ask for is watched by the tests themselves.
        pytest.skip("Chromium asks by itself for a name server and for a route to a public address")
    path = os.environ.get("QUARRY_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed: apt install chromium, or name one in QUARRY_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that was opened, and everything that it did besides what was asked of it."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        """The requests that left the origin."""
        own = (self.origin + "/", "blob:" + self.origin)
        return [url for url in self.requests if not url.startswith(own)]

    def ask(self, question: str) -> None:
        """Ask, and wait for the whole answer."""
        before = self.page.locator(".message.assistant").count()
        self.page.fill("#question", question)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(
            f".message.assistant[aria-busy=false] >> nth={before}", timeout=90_000, state="attached"
        )


@contextmanager
def visit(browser: Browser, origin: str, path: str = "/", **context: Any) -> Iterator[Visit]:
    """Open a page in a browser that has never been here; no error may be left in its console."""
    with browser.new_context(
        **{"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **context}
    ) as own:
        seen = Visit(own.new_page(), origin)
        own.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on(
            "console",
            lambda message: (
                seen.errors.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        seen.page.goto(origin + path)
        seen.page.wait_for_selector("h1", state="attached")
        yield seen
