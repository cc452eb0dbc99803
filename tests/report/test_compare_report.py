"""The report of a comparison in headless Chromium."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_json
from fewlabels.report.compare import write_compare_report
from tests.report.example import make_panels, make_result, make_sprite

HOSTILE = ("<script>document.title='owned'</script>", "</script>", '"><img src=x onerror=document.title="owned">')


@pytest.fixture(scope="module")
def panels(fmnist):
    return make_panels(fmnist, 600)


@pytest.fixture
def written(fmnist, tmp_path: Path):
    """A function that writes the report of a result and, if given, its panels; it returns the report's path."""

    def write(result=None, panels=None, **changed) -> Path:
        result = result or make_result(**{"class_names": list(fmnist.test.class_names), **changed})
        write_json(tmp_path / "result.json", result)
        if panels is not None:
            write_json(tmp_path / "panels.json", panels)
        return write_compare_report(tmp_path)

    return write


def pixels_drawn(page) -> int:
    """Number of pixels of the map that are not transparent."""
    return page.evaluate("""() => {
        const map = document.getElementById("points"), copy = document.createElement("canvas");
        copy.width = map.width; copy.height = map.height;
        const pen = copy.getContext("2d");
        pen.drawImage(map, 0, 0);
        return pen.getImageData(0, 0, map.width, map.height).data.filter((value, i) => i % 4 === 3 && value).length;
    }""")


def many_classes(panels, number: int) -> tuple[list[str], dict]:
    """Names of classes, and panels with the same points in that number of classes."""
    rng = np.random.default_rng(0)
    confusion = rng.poisson(0.3, (number, number)) + 90 * np.eye(number, dtype=int)
    count = len(panels["points"]["x"])
    label, prediction = (np.arange(count) % number).tolist(), rng.integers(0, number, count).tolist()
    points = {**panels["points"], "label": label, "prediction": prediction}
    return [f"class {i}" for i in range(number)], {**panels, "points": points, "confusion": confusion.tolist()}


def test_compare_report_has_all_sections_and_loads_nothing_from_the_network(opened, written, panels):
    report = written(panels=panels)
    page, errors, requests = opened(report, wait=1500)
    assert errors == []
    assert [url for url in requests if url != report.as_uri() and not url.startswith("data:")] == []
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "All candidates",
        "Scores by number of labels",
        "Pretraining",
        "Map of the images",
        "Confusion matrix",
        "Most confident mistakes",
        "Possible label issues",
        "Near-duplicates across training and test",
        "How this was measured",
    ]
    assert "Pretraining helps: +" in page.locator("h1").inner_text()
    assert "31 of 10,000" in page.locator(".audit").inner_text()
    assert page.locator("nav a").count() == len(headings)
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    for image in page.locator("main ul img:visible").all():
        assert image.evaluate("img => img.complete && img.naturalWidth === 28")
    for event, opens in (("beforeprint", True), ("afterprint", False)):
        page.evaluate("name => window.dispatchEvent(new Event(name))", event)
        assert page.locator("main details").count() > 0
        assert page.locator("main details[open]").count() == (page.locator("main details").count() if opens else 0)


def test_compare_report_without_panels_and_with_one_pair(opened, written):
    page, errors, _ = opened(written(labels=(1000,), pairs=1))
    assert errors == []
    assert "With 1 pair nothing can be claimed" in page.locator("h1").inner_text()
    assert page.locator("h2").all_inner_texts() == ["All candidates", "Pretraining", "How this was measured"]
    assert "±" not in page.locator(".candidates").inner_text()


def test_compare_report_table_contains_scores_and_differences(opened, written):
    result = make_result(class_names=["a", "b"])
    page, _, _ = opened(written(result))
    claim = next(row for row in result["differences"] if row["arm"] == "mocov2-finetune" and row["labels"] == 1000)
    score = next(row for row in result["scores"] if row["arm"] == "mocov2-finetune" and row["labels"] == 1000)
    row = page.locator("tr.primary").last
    assert f"{score['mean']:.4f} ± {score['spread']:.4f}" in row.inner_text()
    assert f"{100 * claim['difference']:+.1f}" in row.inner_text()
    assert f"{100 * claim['low']:+.1f} to {100 * claim['high']:+.1f}" in row.inner_text()
    assert claim["verdict"] == "helps" and row.locator(".verdict").inner_text() == "helps"
    assert row.locator("circle.pair").count() == 10
    assert "baseline" in page.locator("tr.baseline").last.inner_text()


def test_compare_report_shows_collapse_verdicts(opened, written):
    result = make_result()
    line = "collapse at step 300: RankMe 1.2. Likely cause: rate."
    result["pretrainings"][2]["verdicts"] = [line]
    page, _, _ = opened(written(result))
    assert page.locator(".alerts").inner_text() == f"mocov2, pair 3 {line}"
    page, _, _ = opened(written())
    assert "found no collapse" in page.locator("#pretraining").inner_text()
    for run in result["pretrainings"]:
        run |= {"verdicts": [], "monitored": False}
    page, _, _ = opened(written(result))
    assert "Too short for the collapse monitor" in page.locator("#pretraining").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("classes", [2, 10, 120])
def test_compare_report_fits_a_narrow_screen(opened, written, panels, scheme, classes):
    names, changed = many_classes(panels, classes)
    changed["mistakes"], changed["label_errors"] = changed["mistakes"][:3], []
    report = written(panels=changed, class_names=names)
    page, errors, _ = opened(report, viewport={"width": 360, "height": 800}, color_scheme=scheme)
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#legend button").count() == classes
    page.locator("td.cell button").first.click()
    assert page.locator("#cell-dialog").bounding_box()["width"] < 360


def test_compare_report_escapes_html_in_names(opened, written, panels):
    hostile = [*HOSTILE, *(f"<b>{i}</b>" for i in range(7))]
    names = [HOSTILE[i % 3] for i in range(len(panels["points"]["x"]))]
    changed = {**panels, "title": HOSTILE[0], "points": {**panels["points"], "name": names}}
    result = make_result(class_names=hostile, command=HOSTILE[0], name=HOSTILE[1], verdict=HOSTILE[2])
    page, errors, _ = opened(written(result, panels=changed))
    assert errors == []
    assert page.title() == f"fewlabels: {HOSTILE[1]}"
    assert page.locator("h1").inner_text() == HOSTILE[2]
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[2]):
        assert text in page.locator("#confusion thead").inner_text()
        assert text in page.locator("#legend").inner_text()
        assert text in page.locator("#mistakes").inner_text()
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert any(text in page.locator("#card b").inner_text() for text in HOSTILE)
    page.locator("td.cell.correct button").first.click()
    assert HOSTILE[0] in page.locator("#cell-title").inner_text()
    assert page.locator("img[src=x], main b b").count() == 0
    assert page.title() == f"fewlabels: {HOSTILE[1]}"


def test_map_shows_the_card_of_a_point_by_pointer_and_keyboard(opened, written, panels):
    page, _, _ = opened(written(panels=panels))
    canvas, card = page.locator("#points"), page.locator("#card")
    assert not page.locator("#plain").is_visible()
    assert pixels_drawn(page) > 1000
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    first, image = card.inner_text(), card.locator("canvas").evaluate("c => c.toDataURL()")
    assert "predicted: " in first and "label: " in first and "%" in first
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert card.inner_text() != first
    assert card.locator("canvas").evaluate("c => c.toDataURL()") != image
    ring = page.locator("#ring").bounding_box()
    text = card.inner_text()
    page.keyboard.press("Escape")
    assert not card.is_visible()
    page.mouse.move(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
    assert card.inner_text().replace("\n", "") == text.replace("\n", "")


def test_map_card_shows_the_image_of_the_point(opened, written, panels, fmnist):
    page, _, _ = opened(written(panels=panels))
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    split, row = page.locator("#card b").inner_text().split()
    image = getattr(fmnist, split.replace("training", "train")).images[int(row)][0]
    shown = page.locator("#card canvas").evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, index) => index % 4 === 0)"
    )
    assert np.corrcoef(np.ravel(shown), image.ravel())[0, 1] > 0.95  # WebP loses little


def test_legend_hides_points_and_colour_schemes_change_the_map(opened, written, panels):
    page, _, _ = opened(written(panels=panels))
    before = pixels_drawn(page)
    group = page.locator("#legend button").nth(1)
    number = int(group.locator("small").inner_text())
    group.press("Enter")
    assert group.get_attribute("aria-pressed") == "false"
    assert page.locator("#visible-count").inner_text() == f"{600 - number} of 600 shown"
    page.wait_for_timeout(200)
    assert pixels_drawn(page) < before
    page.locator("#all").click()
    assert page.locator("#visible-count").inner_text() == "600 of 600 shown"
    picture = page.locator("#points").evaluate("c => c.toDataURL()")
    for scheme, groups in (("prediction", 10), ("confidence", 5), ("split", 3)):
        page.locator(f"input[value={scheme}]").check()
        page.wait_for_timeout(200)
        assert 1 < page.locator("#legend button").count() <= groups
        changed = page.locator("#points").evaluate("c => c.toDataURL()")
        assert changed != picture
        picture = changed
    page.locator("input[value='3']").check()
    page.wait_for_timeout(200)
    assert page.locator("#points").evaluate("c => c.toDataURL()") != picture


def test_map_without_webgl(opened, written, panels, launch):
    without_webgl = launch("--disable-3d-apis", "--disable-gpu")
    page, errors, _ = opened(written(panels=panels), browser=without_webgl)
    assert errors == []
    assert "no WebGL" in page.locator("#plain").inner_text()
    assert pixels_drawn(page) > 1000
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert "predicted: " in page.locator("#card").inner_text()


def test_confusion_matrix_cells_open_their_images_by_keyboard(opened, written, panels):
    page, _, _ = opened(written(panels=panels))
    assert page.locator("#confusion button[tabindex='0']").count() == 1
    page.locator("#confusion button[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert "predicted correctly" in page.locator("#readout").inner_text()
    page.keyboard.press("Enter")
    num_points = sum(
        label == 0 and prediction == 0 and split == 2
        for label, prediction, split in zip(
            *(panels["points"][key] for key in ("label", "prediction", "split")), strict=True
        )
    )
    assert page.locator("#cell-images li").count() == num_points
    shown = f"{num_points} of {panels['confusion'][0][0]} test images shown"
    assert shown in page.locator("#cell-summary").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#cell-dialog").is_visible()
    assert page.evaluate("document.activeElement.closest('td').cellIndex") == 1


def test_thumbnails_in_colour_that_are_not_square(opened, written, panels):
    count = len(panels["points"]["x"])
    images = np.zeros((count, 20, 32, 3), np.uint8)
    images[..., 0] = 200
    page, errors, _ = opened(written(panels={**panels, "sprite": make_sprite(images)}))
    assert errors == []
    image = page.locator("#mistakes img").first
    assert image.evaluate("img => [img.naturalWidth, img.naturalHeight]") == [32, 20]
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    red, green, _, alpha = page.locator("#card canvas").evaluate(
        "c => [...c.getContext('2d').getImageData(16, 10, 1, 1).data]"
    )
    assert (red > 180, green < 30, alpha) == (True, True, 255)


def test_map_of_ten_thousand_images_is_small_and_fast(opened, written, fmnist):
    report = written(panels=make_panels(fmnist, 10_000))
    assert report.stat().st_size < 5_000_000
    page, errors, _ = opened(report, wait=0)
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert "predicted: " in page.locator("#card").inner_text()
    page.wait_for_timeout(200)
    assert pixels_drawn(page) > 10_000
    assert page.locator("*").count() < 2000  # points are no elements, whose layout is slow
    assert errors == []


def test_write_compare_report_is_deterministic(written, panels):
    assert written(panels=panels).read_bytes() == written(panels=panels).read_bytes()


def test_write_compare_report_refuses_missing_and_damaged_files(written, panels, tmp_path: Path):
    with pytest.raises(InputError, match=r"result\.json: no such file"):
        write_compare_report(tmp_path)
    written(panels=panels)
    (tmp_path / "panels.json").write_text(json.dumps({**panels, "mistakes": [600]}))
    with pytest.raises(InputError, match=r"panels\.json: damaged") as error:
        write_compare_report(tmp_path)
    assert "\n" not in str(error.value)
    for text in ("", "{", "[]", "{}", '{"scores": 3}', json.dumps({**make_result(), "seconds": "long"})):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(InputError, match=r"result\.json: damaged"):
            write_compare_report(tmp_path)


def test_importing_the_compare_report_does_not_import_torch():
    code = "import sys, fewlabels.report.compare; sys.exit('torch' in sys.modules or 'plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
