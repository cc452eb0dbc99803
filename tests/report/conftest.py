"""Fixtures that open a report in headless Chromium."""

import shutil
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SOFTWARE_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""Switches for WebGL without a GPU."""
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="session")
def launch():
    """A function that starts a browser with command-line switches."""
    if BROWSER is None:
        pytest.skip("no Chromium here: 'apt install chromium' to test the report")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test the report")
    with playwright.sync_playwright() as p:
        started = []

        def start(*switches: str):
            options = ["--no-sandbox", "--disable-background-networking", *switches]
            started.append(p.chromium.launch(executable_path=BROWSER, args=options))
            return started[-1]

        yield start
        for browser in started:
            browser.close()


@pytest.fixture(scope="session")
def browser(launch):
    return launch(*SOFTWARE_WEBGL)


@pytest.fixture
def opened(browser):
    """A function that opens a file; it returns the page, and lists of the page's errors and requests."""
    pages = []

    def open_file(path: Path, browser=browser, wait: int = 300, **view):
        page = browser.new_page(**view)
        pages.append(page)
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.evaluate(TWO_FRAMES)
        page.wait_for_timeout(wait)
        return page, errors, requests

    yield open_file
    for page in pages:
        page.close()
