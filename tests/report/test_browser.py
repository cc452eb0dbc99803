"""The report as a reader opens it, in headless Chromium."""

import shutil
from pathlib import Path

import pytest

from fewlabels.report.article import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: 'apt install chromium' to test the report")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test the report")
    # Software WebGL, so that 3-D is drawn without a GPU.
    options = [
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-background-networking",
    ]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open a file; gives the page, and lists that collect its errors and its requests."""

    def open_file(path: Path, **view):
        page = browser.new_page(**view)
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_timeout(1500)
        return page, errors, requests

    return open_file


@pytest.mark.parametrize("file", ["report.html", "umap.html"])
def test_no_error_and_nothing_from_the_network(opened, tiny_run, file):
    page, errors, requests = opened(tiny_run.folder / file)
    assert errors == []
    own = (tiny_run.folder / file).as_uri()
    assert [url for url in requests if url != own and not url.startswith(("data:", "blob:"))] == []
    page.close()


def test_every_panel_draws(opened, tiny_run):
    page, _, _ = opened(tiny_run.folder / "report.html")
    assert page.locator("h2").count() == 7
    for image in page.locator("img").all():
        assert image.evaluate("img => img.complete && img.naturalWidth > 300")
    assert page.locator("#loss-0 .scatterlayer path.js-line").count() == 6
    assert page.locator("#umap canvas").count() > 0
    assert "Ankle boot" in page.locator("#umap").inner_text()
    assert page.locator("h2 + .scroll tr").first.is_visible()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_narrow_screen(opened, tiny_run, scheme):
    page, _, _ = opened(tiny_run.folder / "report.html", viewport={"width": 360, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.close()


def test_a_class_called_script_is_text(opened, tiny_run, tmp_path: Path):
    import json

    hostile = "<script>document.title='owned'</script>"
    text = (tiny_run.folder / "result.json").read_text()
    result = json.loads(text)
    result["class_names"][0] = hostile
    result["claims"].append(hostile)
    result["umap"]["title"] = hostile
    page, errors, _ = opened(write_report(result, tmp_path))
    assert errors == []
    assert page.title() == "fewlabels: the tutorial, tested"
    assert hostile in page.locator("ul li").last.inner_text()
    page.close()
    page, _, _ = opened(tmp_path / "umap.html")
    assert page.title() == hostile
    page.close()
