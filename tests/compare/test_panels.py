import base64
import io
import json

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from fewlabels.compare import panels as module
from fewlabels.compare import run
from fewlabels.compare.cells import Bench
from fewlabels.compare.panels import SIDE, chosen, sprite
from fewlabels.compare.run import compare, write_panels
from fewlabels.data.source import ArraySource
from tests.compare.conftest import of_one_pair

NAMES = tuple([f"{row}.png" for row in range(number)] for number in (256, 80))


def test_what_is_wanted_most_is_shown():
    assert chosen([np.array([7, 3]), np.arange(100)], 100).tolist() == list(range(100))
    assert set(chosen([np.array([7, 3]), np.arange(100)], 5)) >= {3, 7}
    assert len(chosen([np.arange(50), np.arange(100)], 10)) == 10


def test_the_sprite_has_every_image_in_its_place(fmnist):
    some = fmnist.test.first_k(150)
    made = sprite([some.subset(slice(0, 90)), some.subset(slice(90, 150))])
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(made["webp"]))).convert("L")).astype(float)
    assert picture.shape == (2 * 28, 100 * 28)
    for i in (0, 95, 149):
        top, left = 28 * (i // made["columns"]), 28 * (i % made["columns"])
        assert np.abs(picture[top : top + 28, left : left + 28] - some.images[i, 0]).mean() < 12


def test_large_pictures_in_colour_are_made_smaller():
    images = np.zeros((3, 3, 48, 96), np.uint8)
    images[1, 0] = 255
    made = sprite([ArraySource(images, None, ("a",))])
    assert (made["side_x"], made["side_y"]) == (SIDE, SIDE // 2)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(made["webp"]))).convert("RGB"))
    red, green, _ = picture[SIDE // 4, SIDE + SIDE // 2]
    assert red > 200
    assert green < 50


def by_components(features: np.ndarray, components: int) -> np.ndarray:
    """In the place of UMAP, which is compiled for half a minute and has a test of its own."""
    return PCA(components).fit_transform(features)


def test_panels_tell_what_the_classifier_says(bench: Bench, monkeypatch):
    bench = of_one_pair(bench)
    monkeypatch.setattr(module, "umap_projection", by_components)
    images = bench.test.images.copy()
    images[5] = bench.train.images[200]
    twin = Bench(**{**vars(bench), "test": ArraySource(images, bench.test.labels, bench.test.class_names)})
    result = compare(twin)
    assert result["audit"]["line"].startswith("1 of 80 test images has a twin")
    row = result["arms"][0]
    assert row["mean_without_twins"] != row["mean"]
    write_panels(twin, NAMES)
    made = json.loads((bench.folder / "panels.json").read_text())
    points = made["points"]
    lengths = {len(values) for values in points.values()}
    assert lengths == {256 + 80}
    assert [points["split"].count(split) for split in range(3)] == [30, 226, 80]
    confusion = np.array(made["confusion"])
    named, labels = np.array(points["prediction"])[256:], np.array(points["label"])[256:]
    assert np.array_equal(confusion[3, 2], ((labels == 3) & (named == 2)).sum())
    assert confusion.sum() == 80
    tested, trained = made["twins"][0]
    assert (points["name"][tested], points["name"][trained]) == ("test 5.png", "training 200.png")
    first, second = (points["confidence"][point] for point in made["mistakes"][:2])
    assert first >= second
    for about in made["label_errors"]:
        assert points["label"][about["point"]] == about["given"] != about["suggested"]

    def draws(bench):
        raise AssertionError("drawn again")

    monkeypatch.setattr(run, "panels", draws)
    write_panels(twin, NAMES)
