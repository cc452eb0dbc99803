"""The report of check in headless Chromium."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_json
from fewlabels.report.check import write_check_report

HOSTILE = ("<script>document.title='owned'</script>", '"><img src=x onerror=document.title="owned">', "[b]\udcff\u202e")


def make_result(names: tuple[str, ...] = ("a/1.png", "b/2.png", "c/3.png"), **changed: Any) -> dict[str, Any]:
    """Content of ``check.json`` with findings of every kind."""
    one, two, three = names
    buffer = io.BytesIO()
    Image.new("L", (28, 28), 90).save(buffer, "webp")
    thumb = base64.b64encode(buffer.getvalue()).decode()

    def finding(kind: str, image: str, other: str = "", label: str = "cat", why: str = "why it is") -> dict[str, str]:
        return {"kind": kind, "image": image, "other": other, "label": label, "why": why}

    return {
        "name": "check", "command": "fewlabels check photos", "date": "2026-11-26", "versions": {"python": "3.11"},
        "machine": {"cpu": "any", "cores": 2, "memory_gib": 8.0}, "data": one,
        "counts": {
            "images": 200, "readable": 198, "labelled": 150, "unlabelled": 48, "training": 0, "test": 40, "left_out": 3,
        },
        "classes": {"cat": 120, two: 3}, "sizes": {"28x28": 190, **{f"{n}x{n}": 1 for n in range(30, 40)}},
        "channels": {"1": 198}, "bits": {"8": 198}, "formats": {"PNG": 198}, "found": {},
        "findings": [
            finding("corrupt", three, label="", why=two), finding("channels", two), finding("constant", one),
            finding("conflict", one, two), finding("duplicate", one, three), finding("near-duplicate", two, three),
            finding("leak", one, two), finding("leak", two), finding("outlier", two),
            finding("few labels", "", label=two), finding("imbalance", "", label=two),
            *[finding("label issue", f"{one} {n}", label=two, why=f"looks like {three}") for n in range(80)],
        ],
        "thumbs": {one: thumb, two: thumb, **{f"{one} {n}": thumb for n in range(60)}},
        **changed,
    }  # fmt: skip


@pytest.fixture
def written(tmp_path: Path):
    def write(result: dict[str, Any]) -> Path:
        write_json(tmp_path / "check.json", result)
        return write_check_report(tmp_path)

    return write


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_check_report_shows_every_kind_of_finding_and_loads_nothing_from_the_network(opened, written, scheme):
    report = written(make_result())
    page, errors, requests = opened(report, wait=200, viewport={"width": 360, "height": 800}, color_scheme=scheme)
    assert errors == []
    assert [url for url in requests if url != report.as_uri() and not url.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("h1").inner_text() == "83 of 200 images need attention"
    assert [text.split("\n")[0] for text in page.locator("h2").all_inner_texts()] == [
        "Files that cannot be used 2",
        "Blank images 1",
        "Copies with different labels 1",
        "Test images among the training images 2",
        "Possible label issues 80",
        "Duplicates 1",
        "Near-duplicates 1",
        "Outliers 1",
        "Classes",
        "Sizes and formats",
        "How this was checked",
    ]
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.locator("#label-issues li").count() == 60
    assert page.locator("#label-issues li:visible").count() == 24
    assert "20 more are in check.json" in page.locator("#label-issues").inner_text()
    for image in page.locator("main img:visible").all():
        assert image.evaluate("img => img.complete && img.naturalWidth === 28")


def test_check_report_escapes_html_in_names(opened, written):
    page, errors, _ = opened(written(make_result(HOSTILE)), wait=200)
    assert errors == []
    assert page.title() == f"fewlabels: check of {HOSTILE[0]}"
    assert page.locator("img[src=x], script").count() == 0
    for section in ("#unreadable", "#label-issues", "#duplicates"):
        text = page.locator(section).inner_text()
        assert HOSTILE[0] in text or HOSTILE[1] in text
    assert "\\udcff" in page.locator("#unreadable").inner_text()


def test_check_report_without_findings(opened, written):
    page, errors, _ = opened(written(make_result(findings=[], thumbs={})), wait=200)
    assert errors == []
    assert "No problem found in the images" in page.locator("h1").inner_text()
    assert page.locator("h2").all_inner_texts() == ["Classes", "Sizes and formats", "How this was checked"]


def test_write_check_report_refuses_missing_and_damaged_files(written, tmp_path):
    with pytest.raises(InputError, match=r"check\.json: no such file"):
        write_check_report(tmp_path)
    for text in ("", "[]", "{}", json.dumps({**make_result(), "findings": [{"kind": "corrupt"}]})):
        (tmp_path / "check.json").write_text(text)
        with pytest.raises(InputError, match=r"check\.json: damaged"):
            write_check_report(tmp_path)
