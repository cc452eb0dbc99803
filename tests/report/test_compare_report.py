"""The comparison's report as a reader opens it, in headless Chromium."""

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
    """Write the report of a result and, if given, its panels."""

    def write(result=None, panels=None, **changed) -> Path:
        result = result or make_result(**{"class_names": list(fmnist.test.class_names), **changed})
        write_json(tmp_path / "result.json", result)
        if panels is not None:
            write_json(tmp_path / "panels.json", panels)
        return write_compare_report(tmp_path)

    return write


def pixels_drawn(page) -> int:
    """Of the map."""
    return page.evaluate("""() => {
        const map = document.getElementById("points"), copy = document.createElement("canvas");
        copy.width = map.width; copy.height = map.height;
        const pen = copy.getContext("2d");
        pen.drawImage(map, 0, 0);
        return pen.getImageData(0, 0, map.width, map.height).data.filter((value, at) => at % 4 === 3 && value).length;
    }""")


def many_classes(panels, number: int) -> tuple[list[str], dict]:
    """The same points, spread over so many classes."""
    rng = np.random.default_rng(0)
    confusion = rng.poisson(0.3, (number, number)) + 90 * np.eye(number, dtype=int)
    count = len(panels["points"]["x"])
    label, prediction = (np.arange(count) % number).tolist(), rng.integers(0, number, count).tolist()
    points = {**panels["points"], "label": label, "prediction": prediction}
    return [f"class {i}" for i in range(number)], {**panels, "points": points, "confusion": confusion.tolist()}


def test_every_panel_is_there_in_order_without_error_and_nothing_from_the_network(opened, written, panels):
    report = written(panels=panels)
    page, errors, requests = opened(report, wait=1500)
    assert errors == []
    assert [url for url in requests if url != report.as_uri() and not url.startswith("data:")] == []
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Every arm",
        "What a label buys",
        "Pretraining",
        "A map of the images",
        "What is taken for what",
        "Most confident mistakes",
        "Labels worth a second look",
        "Twins across training and test",
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


def test_without_panels_and_with_one_pair(opened, written):
    page, errors, _ = opened(written(labels=(1000,), pairs=1))
    assert errors == []
    assert "With 1 pair nothing can be claimed" in page.locator("h1").inner_text()
    assert page.locator("h2").all_inner_texts() == ["Every arm", "Pretraining", "How this was measured"]
    assert "±" not in page.locator(".arms").inner_text()


def test_figures_of_the_table(opened, written):
    result = make_result(class_names=["a", "b"])
    page, _, _ = opened(written(result))
    claim = next(row for row in result["differences"] if row["arm"] == "mocov2-finetune" and row["labels"] == 1000)
    score = next(row for row in result["arms"] if row["arm"] == "mocov2-finetune" and row["labels"] == 1000)
    row = page.locator("tr.asked").last
    assert f"{score['mean']:.4f} ± {score['spread']:.4f}" in row.inner_text()
    assert f"{100 * claim['difference']:+.1f}" in row.inner_text()
    assert f"{100 * claim['low']:+.1f} to {100 * claim['high']:+.1f}" in row.inner_text()
    assert claim["verdict"] == "helps" and row.locator(".verdict").inner_text() == "helps"
    assert row.locator("circle.pair").count() == 10
    assert "baseline" in page.locator("tr.baseline").last.inner_text()


def test_what_the_guard_said(opened, written):
    result = make_result()
    line = "collapse at step 300: RankMe 1.2. Likely cause: rate."
    result["pretrainings"][2]["verdicts"] = [line]
    page, _, _ = opened(written(result))
    assert page.locator(".guard").inner_text() == f"mocov2, pair 3 {line}"
    page, _, _ = opened(written())
    assert "nothing found" in page.locator("#pretraining").inner_text()
    for run in result["pretrainings"]:
        run |= {"verdicts": [], "judged": False}
    page, _, _ = opened(written(result))
    assert "Too short for the collapse guard" in page.locator("#pretraining").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("classes", [2, 10, 120])
def test_fits_a_narrow_screen(opened, written, panels, scheme, classes):
    names, spread = many_classes(panels, classes)
    spread["mistakes"], spread["label_errors"] = spread["mistakes"][:3], []
    report = written(panels=spread, class_names=names)
    page, errors, _ = opened(report, viewport={"width": 360, "height": 800}, color_scheme=scheme)
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#legend button").count() == classes
    page.locator("td.cell button").first.click()
    assert page.locator("#behind").bounding_box()["width"] < 360


def test_names_are_text_everywhere(opened, written, panels):
    hostile = [*HOSTILE, *(f"<b>{i}</b>" for i in range(7))]
    names = [HOSTILE[i % 3] for i in range(len(panels["points"]["x"]))]
    spread = {**panels, "title": HOSTILE[0], "points": {**panels["points"], "name": names}}
    result = make_result(class_names=hostile, command=HOSTILE[0], name=HOSTILE[1], verdict=HOSTILE[2])
    page, errors, _ = opened(written(result, panels=spread))
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
    page.locator("td.cell.right button").first.click()
    assert HOSTILE[0] in page.locator("#behind-title").inner_text()
    assert page.locator("img[src=x], main b b").count() == 0
    assert page.title() == f"fewlabels: {HOSTILE[1]}"


def test_the_map_answers_pointer_and_keyboard(opened, written, panels):
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
    told = card.inner_text()
    page.keyboard.press("Escape")
    assert not card.is_visible()
    page.mouse.move(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
    assert card.inner_text().replace("\n", "") == told.replace("\n", "")


def test_the_image_shown_is_the_point_s_own(opened, written, panels, fmnist):
    page, _, _ = opened(written(panels=panels))
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    split, row = page.locator("#card b").inner_text().split()
    image = getattr(fmnist, split.replace("training", "train")).images[int(row)][0]
    shown = page.locator("#card canvas").evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, at) => at % 4 === 0)"
    )
    assert np.corrcoef(np.ravel(shown), image.ravel())[0, 1] > 0.95  # WebP loses little


def test_legend_hides_and_colours_change(opened, written, panels):
    page, _, _ = opened(written(panels=panels))
    before = pixels_drawn(page)
    group = page.locator("#legend button").nth(1)
    number = int(group.locator("small").inner_text())
    group.press("Enter")
    assert group.get_attribute("aria-pressed") == "false"
    assert page.locator("#seen").inner_text() == f"{600 - number} of 600 shown"
    page.wait_for_timeout(200)
    assert pixels_drawn(page) < before
    page.locator("#all").click()
    assert page.locator("#seen").inner_text() == "600 of 600 shown"
    picture = page.locator("#points").evaluate("c => c.toDataURL()")
    for colouring, groups in (("prediction", 10), ("confidence", 5), ("split", 3)):
        page.locator(f"input[value={colouring}]").check()
        page.wait_for_timeout(200)
        assert 1 < page.locator("#legend button").count() <= groups
        changed = page.locator("#points").evaluate("c => c.toDataURL()")
        assert changed != picture
        picture = changed
    page.locator("input[value='3']").check()
    page.wait_for_timeout(200)
    assert page.locator("#points").evaluate("c => c.toDataURL()") != picture


def test_the_map_without_webgl(opened, written, panels, launch):
    plain = launch("--disable-3d-apis", "--disable-gpu")
    page, errors, _ = opened(written(panels=panels), browser=plain)
    assert errors == []
    assert "no WebGL" in page.locator("#plain").inner_text()
    assert pixels_drawn(page) > 1000
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert "predicted: " in page.locator("#card").inner_text()


def test_cells_open_the_images_behind_them_by_keyboard(opened, written, panels):
    page, _, _ = opened(written(panels=panels))
    assert page.locator("#confusion button[tabindex='0']").count() == 1
    page.locator("#confusion button[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert "recognised" in page.locator("#readout").inner_text()
    page.keyboard.press("Enter")
    of_points = sum(
        label == 0 and prediction == 0 and split == 2
        for label, prediction, split in zip(
            *(panels["points"][key] for key in ("label", "prediction", "split")), strict=True
        )
    )
    assert page.locator("#behind-images li").count() == of_points
    shown = f"{of_points} of {panels['confusion'][0][0]} test images shown"
    assert shown in page.locator("#behind-about").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#behind").is_visible()
    assert page.evaluate("document.activeElement.closest('td').cellIndex") == 1


def test_colour_thumbs_that_are_not_square(opened, written, panels):
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


def test_large_and_still_quick(opened, written, fmnist):
    report = written(panels=make_panels(fmnist, 10_000))
    assert report.stat().st_size < 5_000_000
    page, errors, _ = opened(report, wait=0)
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    assert "predicted: " in page.locator("#card").inner_text()
    page.wait_for_timeout(200)
    assert pixels_drawn(page) > 10_000
    assert page.locator("*").count() < 2000  # no point is an element of its own, which a browser is slow to lay out
    assert errors == []


def test_the_same_files_give_the_same_report(written, panels):
    assert written(panels=panels).read_bytes() == written(panels=panels).read_bytes()


def test_damaged_files_are_told(written, panels, tmp_path: Path):
    with pytest.raises(InputError, match=r"result\.json: no such file"):
        write_compare_report(tmp_path)
    written(panels=panels)
    (tmp_path / "panels.json").write_text(json.dumps({**panels, "mistakes": [600]}))
    with pytest.raises(InputError, match=r"panels\.json: damaged") as told:
        write_compare_report(tmp_path)
    assert "\n" not in str(told.value)
    for text in ("", "{", "[]", "{}", '{"arms": 3}', json.dumps({**make_result(), "seconds": "long"})):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(InputError, match=r"result\.json: damaged"):
            write_compare_report(tmp_path)


def test_torch_is_not_loaded():
    code = "import sys, fewlabels.report.compare; sys.exit('torch' in sys.modules or 'plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
