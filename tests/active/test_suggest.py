import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.documents import suggest_gains
from benchmarks.suggest import LABELS, SEEDS
from fewlabels.active.suggest import CANDIDATES_PER_IMAGE, first_batch, next_batch
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import save_classifier
from fewlabels.data.listing import list_images
from fewlabels.features.hog import gradient_features


def make_clusters(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of well separated clusters, in random order, and the cluster of each row."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = 10 * rng.normal(size=(len(sizes), 40))
    return (centres[cluster] + rng.normal(size=(len(cluster), 40))).astype(np.float32), cluster


def test_first_batch_has_each_cluster_unlike_a_random_sample():
    sizes = [400, 200, 100, 50, 25, 12, 6, 5]
    features, cluster = make_clusters(sizes)
    found = first_batch(features, 8, seed=3)
    assert cluster[found.rows].tolist() == list(range(8))  # the largest first
    assert found.cluster_sizes.tolist() == sizes
    random_clusters = [len(set(np.random.default_rng(n).choice(cluster, 8, replace=False))) for n in range(200)]
    assert np.mean(random_clusters) < 5


def test_first_batch_has_the_image_nearest_to_each_cluster_mean():
    features, cluster = make_clusters([30, 20])
    for row in first_batch(features, 2).rows:
        members = np.flatnonzero(cluster == cluster[row])
        distances = np.square(features[members] - features[members].mean(axis=0)).sum(axis=1)
        assert row == members[distances.argmin()]


def test_next_batch_has_one_image_of_each_unsure_cluster():
    features, cluster = make_clusters([50] * 8)
    confidence = np.where(cluster < 5, 0.55, 0.95)[:, None]  # clusters 0 to 4 have small margins
    probabilities = np.concatenate([confidence, 1 - confidence], axis=1)
    found = next_batch(features, probabilities, 5)
    assert sorted(cluster[found.rows]) == [0, 1, 2, 3, 4]
    assert found.cluster_sizes.sum() == 5 * CANDIDATES_PER_IMAGE


def test_next_batch_has_only_one_of_equal_low_margin_images(fmnist):
    features = gradient_features(fmnist.train.first_k(300))
    features[100:120] = features[0]
    confidence = np.linspace(0.9, 0.99, 300)
    confidence[[0, *range(100, 120)]] = 0.5
    found = next_batch(features, np.stack([confidence, 1 - confidence], axis=1), 10)
    assert np.isin(found.rows, [0, *range(100, 120)]).sum() == 1


def test_both_batches_depend_on_the_seed_alone(fmnist):
    features = gradient_features(fmnist.train.first_k(500))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 500)
    for select in (
        lambda seed: first_batch(features, 20, seed),
        lambda seed: next_batch(features, probabilities, 20, seed),
    ):
        assert select(1).rows.tolist() == select(1).rows.tolist()
        assert select(1).rows.tolist() != select(2).rows.tolist()


def test_both_batches_have_all_images_if_there_are_few():
    features, _ = make_clusters([4, 3])
    assert sorted(first_batch(features, 50).rows) == list(range(7))
    equal = np.ones((9, 3), np.float32)
    assert len(set(first_batch(equal, 5).rows.tolist())) == 5
    assert sorted(next_batch(equal, np.full((9, 1), 1.0), 9).rows) == list(range(9))


@pytest.fixture
def photos(fmnist, tmp_path: Path) -> Path:
    """Forty training images, half of them labelled, ten test images, two unusual names, and an unreadable file."""
    folder = tmp_path / "photos"
    for row in range(50):
        label = str(fmnist.test.labels[row]) if row < 20 or row >= 40 else "_unlabelled"
        name = {20: "=1.png", 21: " 1.png"}.get(row, f"{row}.png")
        file = folder / name if row in (20, 21) else folder / ("test" if row >= 40 else "train") / label / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.test.images[row, 0]).save(file)
    (folder / "train" / "_unlabelled" / "torn.png").write_bytes(b"torn")
    return folder


@pytest.fixture
def model_file(fmnist, tmp_path: Path) -> Path:
    save_classifier(Classifier("article", fmnist.test.class_names), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def table_rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(newline="")))


@pytest.mark.parametrize("path", ["photos/to_label.csv", "to_label.csv"])
def test_suggest_writes_a_table_that_is_data_once_filled_in(run_cli, photos, tmp_path, path):
    out = tmp_path / path
    ran = run_cli("suggest", photos, "-n", "6", "-o", out)
    assert ran.code == 0, ran.err
    assert "The first 6 rows of" in ran.out
    rows = table_rows(out)
    assert all(row["why"] and not row["label"] and "/test/" not in row["path"] for row in rows[:6])
    assert [row["why"] for row in rows[6:] if row["why"]] == ["not an image"]
    before, after = list_images(photos), list_images(out)
    prefix = "photos/" if path == "to_label.csv" else ""
    listed = {name: (label, split) for name, label, split in zip(after.names, after.labels, after.splits, strict=True)}
    assert listed == {
        prefix + name: (label, split)
        for name, label, split in zip(before.names, before.labels, before.splits, strict=True)
    }
    assert after.class_names == before.class_names
    for row in rows[:6]:
        row["label"] = "7"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    filled = list_images(out)
    assert [filled.class_names[label] for label in filled.labels[:6]] == ["7"] * 6
    assert (filled.labels >= 0).sum() == (before.labels >= 0).sum() + 6


def test_suggest_with_a_model_writes_its_predictions(run_cli, photos, model_file, tmp_path):
    out = photos / "to_label.csv"
    assert run_cli("suggest", model_file, photos, "-n", "5", "-o", out).code == 0
    chosen = table_rows(out)[:5]
    assert run_cli("predict", model_file, photos, "-o", tmp_path / "predicted.csv").code == 0
    predicted = {row["image"].removeprefix("'"): row for row in table_rows(tmp_path / "predicted.csv")}
    for row in chosen:
        expected = predicted[row["path"].removeprefix("./")]
        assert (row["guess"], row["probability"]) == (expected["label"], expected["probability"])
        assert row["why"].startswith(f"{row['guess']} or ")
    assert run_cli("suggest", model_file, out, "-n", "5", "-o", photos / "again.csv").code == 0
    assert table_rows(photos / "again.csv")[:5] == chosen
    assert run_cli("suggest", model_file, photos, "--first", "-n", "5", "-o", photos / "first.csv").code == 0
    assert not any(" or " in row["why"] for row in table_rows(photos / "first.csv"))


def test_suggest_refuses_to_replace_a_file(run_cli, photos):
    out = photos / "to_label.csv"
    out.write_text("path,label\n1.png,shoe\n")
    ran = run_cli("suggest", photos, "-o", out)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "exists and may contain labels. Choose another name." in ran.err
    assert out.read_text().endswith("shoe\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{photos} -o {photos}/train/t.csv", "or a parent folder. Write"),
        ("{photos} -o {photos}/t.txt", "Give it the suffix .csv"),
        ("{photos}/test -o {photos}/t.csv", "every image has a label or is in the test set"),
        ("{photos} {photos} {photos} -o {photos}/t.csv", "one path too many"),
        ("{photos}/none {photos} -o {photos}/t.csv", "none: no such model file"),
        ("{photos} -o {photos}/t.csv -n 0", "--number 0: must be 1 or more"),
        ("{photos}", "Missing option"),
        ("fashion-mnist -o {photos}/t.csv", "Pass a folder of images, or a table"),
    ],
)
def test_suggest_refuses_mistakes_in_one_line(run_cli, photos, words, message):
    ran = run_cli("suggest", *words.format(photos=photos).split())
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err
    assert not (photos / "t.csv").exists()


def test_suggest_benchmark_is_above_random_at_every_number_of_labels():
    gains = suggest_gains()
    assert sorted(gains) == list(LABELS)
    assert all(len(values) == len(SEEDS) and np.mean(values) > 0 for values in gains.values())
