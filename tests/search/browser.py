"""Headless Chromium, as far as it is installed."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = (
    shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
    or ""
)
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="Chromium is not installed (Debian: apt-get install chromium)"
)
expect.set_options(timeout=30_000)  # which the default timeout of a page is not


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, for the length of a `with`."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(_FLAGS)
        )
        try:
            yield running
        finally:
            running.close()


def drag(page: Page, paths: Sequence[Path], *, drop: bool = True) -> None:
    """Drag these files over the middle of the page, as a person does, and drop them there."""
    session = page.context.new_cdp_session(page)
    files = [str(path) for path in paths]
    data = {"items": [], "files": files, "dragOperationsMask": 1}
    for event in ("dragEnter", "dragOver", *(["drop"] if drop else [])):
        session.send(
            "Input.dispatchDragEvent",
            {
                "type": event,
                "x": 300,
                "y": 400,
                "data": data,
            },
        )
