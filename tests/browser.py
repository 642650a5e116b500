"""A real browser for tests: Chromium, and what a page says and asks for."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("KNOWRL_REQUIRE_SERVICES"),
    reason="no Chromium on this machine (Debian: apt-get install chromium); with KNOWRL_REQUIRE_SERVICES=1 a failure",
)


@contextmanager
def chromium():
    """A browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root's processes have no sandbox of Chromium's; what is opened is our own file.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def open_file(context, file):
    """Open a file; returns the page, and a list that gets whatever went wrong or was asked for beside files."""
    page = context.new_page()
    trouble = []
    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith("file:") or trouble.append(f"request {request.url}"))
    page.goto(file.as_uri())
    return page, trouble
