import base64
import io
import json
from dataclasses import replace

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA

from fewlabels.compare import panels as module
from fewlabels.compare import run
from fewlabels.compare.panels import THUMBNAIL_SIDE, select_rows, sprite
from fewlabels.compare.run import compare, write_panels
from fewlabels.data.source import ArraySource
from tests.compare.conftest import with_one_pair

NAMES = tuple([f"{row}.png" for row in range(number)] for number in (256, 80))


def test_select_rows_takes_earlier_groups_first():
    assert select_rows([np.array([7, 3]), np.arange(100)], 100).tolist() == list(range(100))
    assert set(select_rows([np.array([7, 3]), np.arange(100)], 5)) >= {3, 7}
    assert len(select_rows([np.arange(50), np.arange(100)], 10)) == 10


def test_sprite_has_thumbnails_in_the_order_of_the_images(fmnist):
    images = fmnist.test.first_k(150)
    result = sprite([images.subset(slice(0, 90)), images.subset(slice(90, 150))])
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["webp"]))).convert("L")).astype(float)
    assert picture.shape == (2 * 28, 100 * 28)
    for i in (0, 95, 149):
        top, left = 28 * (i // result["columns"]), 28 * (i % result["columns"])
        assert np.abs(picture[top : top + 28, left : left + 28] - images.images[i, 0]).mean() < 12


def test_sprite_reduces_large_images_and_keeps_colours():
    images = np.zeros((3, 3, 48, 96), np.uint8)
    images[1, 0] = 255
    result = sprite([ArraySource(images, None, ("a",))])
    assert (result["side_x"], result["side_y"]) == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["webp"]))).convert("RGB"))
    red, green, _ = picture[THUMBNAIL_SIDE // 4, THUMBNAIL_SIDE + THUMBNAIL_SIDE // 2]
    assert red > 200
    assert green < 50


def project_by_pca(features: np.ndarray, components: int) -> np.ndarray:
    """Replaces UMAP, whose compilation takes half a minute and which has its own test."""
    return PCA(components).fit_transform(features)


def test_write_panels_contains_predictions_mistakes_and_near_duplicates(experiment, monkeypatch):
    monkeypatch.setattr(module, "umap_projection", project_by_pca)
    experiment = with_one_pair(experiment)
    images = experiment.test.images.copy()
    images[5] = experiment.train.images[200]
    test = ArraySource(images, experiment.test.labels, experiment.test.class_names)
    experiment = replace(experiment, test=test)
    result = compare(experiment)
    assert result["audit"]["line"].startswith("1 of 80 test images has a near-duplicate")
    row = result["scores"][0]
    assert row["mean_without_near_duplicates"] != row["mean"]
    write_panels(experiment, NAMES)
    panels = json.loads((experiment.folder / "panels.json").read_text())
    points = panels["points"]
    lengths = {len(values) for values in points.values()}
    assert lengths == {256 + 80}
    assert [points["split"].count(split) for split in range(3)] == [30, 226, 80]
    confusion = np.array(panels["confusion"])
    predictions, labels = np.array(points["prediction"])[256:], np.array(points["label"])[256:]
    assert np.array_equal(confusion[3, 2], ((labels == 3) & (predictions == 2)).sum())
    assert confusion.sum() == 80
    test_point, train_point = panels["near_duplicates"][0]
    assert (points["name"][test_point], points["name"][train_point]) == ("test 5.png", "training 200.png")
    first, second = (points["confidence"][point] for point in panels["mistakes"][:2])
    assert first >= second
    for issue in panels["label_errors"]:
        assert points["label"][issue["point"]] == issue["given"] != issue["suggested"]

    def fail(*args):
        raise AssertionError("the panels are computed again")

    monkeypatch.setattr(run, "panels", fail)
    write_panels(experiment, NAMES)
