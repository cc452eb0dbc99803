import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.documents import suggest_gains
from benchmarks.suggest import LABELS, SEEDS
from fewlabels.active.suggest import DOUBTFUL, first_batch, next_batch
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import save_classifier
from fewlabels.data.listing import listed
from fewlabels.features.hog import gradient_features


def planted(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of clusters that lie far apart, in mixed order, and the cluster of each."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    middles = 10 * rng.normal(size=(len(sizes), 40))
    return (middles[cluster] + rng.normal(size=(len(cluster), 40))).astype(np.float32), cluster


def test_the_first_batch_covers_kinds_that_chance_misses():
    sizes = [400, 200, 100, 50, 25, 12, 6, 5]
    features, cluster = planted(sizes)
    found = first_batch(features, 8, seed=3)
    assert cluster[found.rows].tolist() == list(range(8))  # the largest first
    assert found.stands_for.tolist() == sizes
    chance = [len(set(np.random.default_rng(n).choice(cluster, 8, replace=False))) for n in range(200)]
    assert np.mean(chance) < 5


def test_of_each_kind_the_image_in_the_middle():
    features, cluster = planted([30, 20])
    for row in first_batch(features, 2).rows:
        of_it = np.flatnonzero(cluster == cluster[row])
        assert row == of_it[np.square(features[of_it] - features[of_it].mean(axis=0)).sum(axis=1).argmin()]


def test_the_next_batch_is_doubtful_and_of_many_kinds():
    features, cluster = planted([50] * 8)
    sure = np.where(cluster < 5, 0.55, 0.95)[:, None]  # doubtful are clusters 0 to 4
    probabilities = np.concatenate([sure, 1 - sure], axis=1)
    found = next_batch(features, probabilities, 5)
    assert sorted(cluster[found.rows]) == [0, 1, 2, 3, 4]
    assert found.stands_for.sum() == 5 * DOUBTFUL


def test_copies_of_the_most_doubtful_image_are_asked_for_once(fmnist):
    features = gradient_features(fmnist.train.first_k(300))
    features[100:120] = features[0]
    likely = np.linspace(0.9, 0.99, 300)
    likely[[0, *range(100, 120)]] = 0.5
    found = next_batch(features, np.stack([likely, 1 - likely], axis=1), 10)
    assert np.isin(found.rows, [0, *range(100, 120)]).sum() == 1


def test_the_same_seed_gives_the_same_order(fmnist):
    features = gradient_features(fmnist.train.first_k(500))
    likely = np.random.default_rng(0).dirichlet(np.ones(10), 500)
    for ask in (lambda seed: first_batch(features, 20, seed), lambda seed: next_batch(features, likely, 20, seed)):
        assert ask(1).rows.tolist() == ask(1).rows.tolist()
        assert ask(1).rows.tolist() != ask(2).rows.tolist()


def test_all_are_asked_for_where_there_are_few():
    features, _ = planted([4, 3])
    assert sorted(first_batch(features, 50).rows) == list(range(7))
    same = np.ones((9, 3), np.float32)
    assert len(set(first_batch(same, 5).rows.tolist())) == 5
    assert sorted(next_batch(same, np.full((9, 1), 1.0), 9).rows) == list(range(9))


@pytest.fixture
def photos(fmnist, tmp_path: Path) -> Path:
    """Forty images for training, half of them labelled, and ten for the test; two with awkward names, one torn."""
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


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(newline="")))


@pytest.mark.parametrize("place", ["photos/to_label.csv", "to_label.csv"])
def test_the_table_is_data_once_it_is_filled_in(run_cli, photos, tmp_path, place):
    out = tmp_path / place
    ran = run_cli("suggest", photos, "-n", "6", "-o", out)
    assert ran.code == 0, ran.err
    assert "6 images to label are the first rows of" in ran.out
    rows = rows_of(out)
    assert all(row["why"] and not row["label"] and "/test/" not in row["path"] for row in rows[:6])
    assert [row["why"] for row in rows[6:] if row["why"]] == ["not an image"]
    before, after = listed(photos), listed(out)
    inside = "photos/" if place == "to_label.csv" else ""
    said = {name: (label, split) for name, label, split in zip(after.names, after.labels, after.splits, strict=True)}
    assert said == {
        inside + name: (label, split)
        for name, label, split in zip(before.names, before.labels, before.splits, strict=True)
    }
    assert after.class_names == before.class_names
    for row in rows[:6]:
        row["label"] = "7"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    filled = listed(out)
    assert [filled.class_names[label] for label in filled.labels[:6]] == ["7"] * 6
    assert (filled.labels >= 0).sum() == (before.labels >= 0).sum() + 6


def test_with_a_model_it_says_what_it_takes_them_for(run_cli, photos, model_file, tmp_path):
    out = photos / "to_label.csv"
    assert run_cli("suggest", model_file, photos, "-n", "5", "-o", out).code == 0
    chosen = rows_of(out)[:5]
    assert run_cli("predict", model_file, photos, "-o", tmp_path / "said.csv").code == 0
    said = {row["image"].removeprefix("'"): row for row in rows_of(tmp_path / "said.csv")}
    for row in chosen:
        of_it = said[row["path"].removeprefix("./")]
        assert (row["guess"], row["probability"]) == (of_it["label"], of_it["probability"])
        assert row["why"].startswith(f"{row['guess']} or ")
    assert run_cli("suggest", model_file, out, "-n", "5", "-o", photos / "again.csv").code == 0
    assert rows_of(photos / "again.csv")[:5] == chosen
    assert run_cli("suggest", model_file, photos, "--first", "-n", "5", "-o", photos / "first.csv").code == 0
    assert not any(" or " in row["why"] for row in rows_of(photos / "first.csv"))


def test_labels_that_are_there_are_not_overwritten(run_cli, photos):
    out = photos / "to_label.csv"
    out.write_text("path,label\n1.png,shoe\n")
    ran = run_cli("suggest", photos, "-o", out)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "is there, and may hold labels. Choose another name." in ran.err
    assert out.read_text().endswith("shoe\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{photos} -o {photos}/train/t.csv", "or above it, as a table's paths need. Write"),
        ("{photos} -o {photos}/t.txt", "Let its name end in .csv"),
        ("{photos}/test -o {photos}/t.csv", "every image has a label or is for the test"),
        ("{photos} {photos} {photos} -o {photos}/t.csv", "one path too many"),
        ("{photos}/none {photos} -o {photos}/t.csv", "none: no such model file"),
        ("{photos} -o {photos}/t.csv -n 0", "--number 0: must be 1 or more"),
        ("{photos}", "Missing option"),
        ("fashion-mnist -o {photos}/t.csv", "Pass a folder of images, or a table"),
    ],
)
def test_mistakes_are_one_line(run_cli, photos, words, said):
    ran = run_cli("suggest", *words.format(photos=photos).split())
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert said in ran.err
    assert not (photos / "t.csv").exists()


def test_what_is_proposed_measured_better_than_chance():
    gains = suggest_gains()
    assert sorted(gains) == list(LABELS)
    assert all(len(of) == len(SEEDS) and np.mean(of) > 0 for of in gains.values())
