"""What check has found, as a reader opens it, in headless Chromium."""

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


def made(names: tuple[str, ...] = ("a/1.png", "b/2.png", "c/3.png"), **changed: Any) -> dict[str, Any]:
    """``check.json`` with one finding and more of every kind."""
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
            finding("leak", one, two), finding("leak", two), finding("foreign", two),
            finding("few labels", "", label=two), finding("imbalance", "", label=two),
            *[finding("doubtful label", f"{one} {n}", label=two, why=f"looks like {three}") for n in range(80)],
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
def test_every_kind_is_shown_and_nothing_comes_from_the_network(opened, written, scheme):
    report = written(made())
    page, errors, requests = opened(report, wait=200, viewport={"width": 360, "height": 800}, color_scheme=scheme)
    assert errors == []
    assert [url for url in requests if url != report.as_uri() and not url.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("h1").inner_text() == "83 of 200 images need a look"
    assert [text.split("\n")[0] for text in page.locator("h2").all_inner_texts()] == [
        "Files that cannot be used 2",
        "Images without a content 1",
        "Copies with different labels 1",
        "Test images among those for training 2",
        "Labels worth a second look 80",
        "Images that are there more than once 1",
        "Near-duplicates 1",
        "Images unlike all others 1",
        "Classes",
        "Sizes and formats",
        "How this was looked for",
    ]
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.locator("#doubts li").count() == 60
    assert page.locator("#doubts li:visible").count() == 24
    assert "20 more are in check.json" in page.locator("#doubts").inner_text()
    for image in page.locator("main img:visible").all():
        assert image.evaluate("img => img.complete && img.naturalWidth === 28")


def test_names_are_text_everywhere(opened, written):
    page, errors, _ = opened(written(made(HOSTILE)), wait=200)
    assert errors == []
    assert page.title() == f"fewlabels: check of {HOSTILE[0]}"
    assert page.locator("img[src=x], script").count() == 0
    for place in ("#unreadable", "#doubts", "#duplicates"):
        assert HOSTILE[0] in page.locator(place).inner_text() or HOSTILE[1] in page.locator(place).inner_text()
    assert "\\udcff" in page.locator("#unreadable").inner_text()


def test_all_is_well(opened, written):
    page, errors, _ = opened(written(made(findings=[], thumbs={})), wait=200)
    assert errors == []
    assert "All is well" in page.locator("h1").inner_text()
    assert page.locator("h2").all_inner_texts() == ["Classes", "Sizes and formats", "How this was looked for"]


def test_damaged_files_are_told(written, tmp_path):
    with pytest.raises(InputError, match=r"check\.json: no such file"):
        write_check_report(tmp_path)
    for text in ("", "[]", "{}", json.dumps({**made(), "findings": [{"kind": "corrupt"}]})):
        (tmp_path / "check.json").write_text(text)
        with pytest.raises(InputError, match=r"check\.json: damaged"):
            write_check_report(tmp_path)
