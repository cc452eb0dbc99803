"""The tutorial's report in headless Chromium."""

from pathlib import Path

import pytest

from fewlabels.report.article import write_report


@pytest.mark.parametrize("file", ["report.html", "umap.html"])
def test_article_report_has_no_errors_and_loads_nothing_from_the_network(opened, tiny_run, file):
    _, errors, requests = opened(tiny_run.folder / file, wait=1500)
    assert errors == []
    own = (tiny_run.folder / file).as_uri()
    assert [url for url in requests if url != own and not url.startswith(("data:", "blob:"))] == []


def test_article_report_draws_every_panel(opened, tiny_run):
    page, _, _ = opened(tiny_run.folder / "report.html")
    assert page.locator("h2").count() == 7
    for image in page.locator("img").all():
        assert image.evaluate("img => img.complete && img.naturalWidth > 300")
    assert page.locator("#loss-0 .scatterlayer path.js-line").count() == 6
    assert page.locator("#umap canvas").count() > 0
    assert "Ankle boot" in page.locator("#umap").inner_text()
    assert page.locator("h2 + .scroll tr").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_article_report_fits_a_narrow_screen(opened, tiny_run, scheme):
    page, _, _ = opened(tiny_run.folder / "report.html", viewport={"width": 360, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_article_report_escapes_html_in_class_names(opened, tiny_run, tmp_path: Path):
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
    page, _, _ = opened(tmp_path / "umap.html")
    assert page.title() == hostile
