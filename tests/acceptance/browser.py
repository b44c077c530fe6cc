"""A real Chromium, and pages in it that remember what went wrong in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

PATIENCE = 60_000  # milliseconds: longer only a defect takes, on a slow and busy machine, too
expect.set_options(timeout=PATIENCE)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser(program: Callable[..., str]) -> Iterator[Browser]:
    """Headless, started once."""
    path = program("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a tab of its own: ``open_page(url, color_scheme="dark")``.

    At the end no script of it may have raised, and nothing broke its Content-Security-Policy.
    """
    with ExitStack() as pages:

        def open_(url: str, **options: Any) -> Page:
            return pages.enter_context(_watched(browser, url, options))

        yield open_


@contextmanager
def _watched(browser: Browser, url: str, options: dict[str, Any]) -> Iterator[Page]:
    wrong: list[str] = []
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: _note(message, wrong))
        page.goto(url)
        yield page
    assert wrong == []


def _note(message: Any, wrong: list[str]) -> None:
    """Keep errors; a response such as 401 also counts as one for a browser, and is none."""
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        wrong.append(message.text)
