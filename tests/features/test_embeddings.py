import csv
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from fewlabels.audit.near_duplicates import duplicates, near_duplicates_within, small_pixels
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_classifier, save_classifier
from fewlabels.data.preprocessing import ImageSpec, Preprocessing
from fewlabels.data.source import digest
from fewlabels.features import embeddings
from fewlabels.features.embeddings import embed_images, nearest, neighbours

GRAY = Preprocessing(ImageSpec(1, 28, 28, "uint8"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Classifier("article", [str(c) for c in range(10)])
    model.preprocessing = GRAY
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_classifier(model, file)
    return file


@pytest.fixture(scope="module")
def vectors(fmnist, model_file: Path) -> np.ndarray:
    return outputs(load_classifier(model_file).backbone, fmnist.test.first_k(2000))


def save_image(image: np.ndarray, file: Path, **how: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, **how)
    return file


@pytest.fixture
def photos(fmnist, tmp_path: Path) -> Path:
    """Twelve images, and a file that is not an image."""
    for row in range(12):
        save_image(fmnist.test.images[row, 0], tmp_path / "photos" / f"{row:02}.png")
    (tmp_path / "photos" / "03x.png").write_bytes(b"torn")
    return tmp_path / "photos"


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(newline="")))


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return np.asarray(Image.open(buffer))


def test_embed_images_gives_backbone_features_and_reports_unreadable_files(fmnist, model_file, photos):
    model = load_classifier(model_file)
    found = embed_images(model, photos, GRAY)
    assert found.names == [f"{row:02}.png" for row in range(12)]
    assert found.problems == {"03x.png": "not an image"}
    assert np.allclose(found.vectors, outputs(model.backbone, fmnist.test.first_k(12)), atol=1e-5)


def test_nearest_equals_scikit_learn(vectors, monkeypatch):
    monkeypatch.setattr(embeddings, "SIMILARITIES_PER_BLOCK", 20_000)  # ten queries at a time
    found = nearest(vectors[:45], vectors[45:], 7)
    reference = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(vectors[45:])
    distances, rows = reference.kneighbors(vectors[:45])
    assert np.allclose(1 - found.similarity, distances, atol=1e-5)
    assert (found.rows == rows).mean() > 0.99  # equal similarities may have another order
    assert nearest(vectors[:2], vectors[:3], 7).rows.shape == (2, 3)


def test_neighbours_do_not_contain_the_image_itself(vectors):
    copies = vectors[:60].copy()
    copies[20:40] = copies[7]  # more than the number of neighbours
    found = neighbours(copies, 5)
    assert not (found.rows == np.arange(60)[:, None]).any()
    distances, _ = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(copies).kneighbors()
    assert np.allclose(1 - found.similarity, distances, atol=1e-5)


def test_neighbours_with_hnsw_finds_nearly_all_neighbours(vectors, monkeypatch):
    exact = neighbours(vectors, 5)
    monkeypatch.setattr(embeddings, "EXACT_UP_TO", 100)
    found = neighbours(vectors, 5)
    assert not (found.rows == np.arange(len(vectors))[:, None]).any()
    shared = [
        len(set(ours) & set(theirs)) for ours, theirs in zip(found.rows.tolist(), exact.rows.tolist(), strict=True)
    ]
    assert np.mean(shared) / 5 > 0.95


def test_duplicates_finds_planted_duplicates_only(fmnist, model_file):
    some = fmnist.test.first_k(800)
    existing = np.flatnonzero(near_duplicates_within(some) >= 0)
    images = np.delete(some.images, existing, axis=0)[:700].copy()
    images[100] = images[3]
    images[200, 0], images[300, 0] = recompressed(images[8, 0]), recompressed(images[3, 0])
    images[400] = images[401] = 77  # without contrast, but the same pixels
    images[500] = np.clip(images[9].astype(int) + 40, 0, 255)  # a brighter image is not a duplicate
    source = type(some)(images, None, ())
    vectors = outputs(load_classifier(model_file).backbone, source)
    small = np.rint(255 * small_pixels(source.read(slice(None)))).astype(np.uint8)
    found = duplicates(vectors, small, [digest(image.tobytes()) for image in images])
    assert [group.tolist() for group in found] == [[3, 100, 300], [8, 200], [400, 401]]
    assert duplicates(vectors[:1], small[:1], ["a"]) == []


def test_embed_writes_an_array_and_a_table_of_names(run_cli, fmnist, model_file, photos, tmp_path):
    ran = run_cli("embed", model_file, photos, "-o", tmp_path / "v" / "out.npy")
    assert ran.code == 0, ran.err
    assert "1 files could not be read" in ran.out
    array = np.load(tmp_path / "v" / "out.npy", allow_pickle=False)
    assert (array.shape, array.dtype) == ((12, 2048), np.float32)
    assert np.allclose(array, outputs(load_classifier(model_file).backbone, fmnist.test.first_k(12)), atol=1e-5)
    rows = table(tmp_path / "v" / "out.csv")
    assert [(row["image"], row["row"]) for row in rows[2:6]] == [
        ("02.png", "2"), ("03.png", "3"), ("03x.png", ""), ("04.png", "4")
    ]  # fmt: skip
    assert [row["problem"] for row in rows if row["problem"]] == ["not an image"]
    assert run_cli("embed", model_file, photos, "-o", tmp_path / "v" / "out.npy").code == 0  # replaces its own table


def test_embed_writes_parquet(run_cli, model_file, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run_cli("embed", model_file, photos, "-o", tmp_path / "out.parquet").code == 0
    assert run_cli("embed", model_file, photos, "-o", tmp_path / "out.npy").code == 0
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["image"] for row in rows if row["embedding"] is None] == ["03x.png"]
    read = np.array([row["embedding"] for row in rows if row["problem"] is None], np.float32)
    assert np.array_equal(read, np.load(tmp_path / "out.npy"))


def test_commands_refuse_to_overwrite_files_of_the_user(run_cli, model_file, photos):
    own = photos.parent / "photos.csv"
    own.write_text("path,label\nphotos/00.png,shoe\n")
    ran = run_cli("embed", model_file, photos, "-o", photos.parent / "photos.npy")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "photos.csv: exists and was not written by this command" in ran.err
    assert own.read_text().endswith("shoe\n")
    for command in (("predict", photos), ("search", photos, photos), ("dedupe", photos)):
        ran = run_cli(command[0], model_file, *command[1:], "-o", own)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "Choose another name with --out" in ran.err
        assert own.read_text().endswith("shoe\n")
    own.unlink()
    np.save(photos.parent / "photos.npy", np.zeros((3, 28, 28), np.uint8))
    (photos.parent / "photos.parquet").write_bytes(b"the user's")
    for name in ("photos.npy", "photos.parquet"):
        ran = run_cli("embed", model_file, photos, "-o", photos.parent / name)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert f"{name}: exists " in ran.err
        (photos.parent / name).unlink()
    ran = run_cli("embed", model_file, photos, "-o", photos.parent / "photos.txt")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "Give it the suffix .npy or .parquet" in ran.err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
def test_names_that_are_not_utf8_are_escaped(run_cli, fmnist, model_file, tmp_path):
    pytest.importorskip("pyarrow")
    save_image(fmnist.test.images[0, 0], Path(os.fsdecode(bytes(tmp_path / "photos") + b"/caf\xe9.png")))
    for command, name in (("predict", "out.csv"), ("embed", "out.parquet")):
        ran = run_cli(command, model_file, tmp_path / "photos", "-o", tmp_path / name)
        assert ran.code == 0, ran.err
        assert rb"caf\udce9.png" in (tmp_path / name).read_bytes()
    ran = run_cli("predict", model_file, tmp_path / "photos")
    assert r"caf\udce9.png" in ran.out


def test_search_finds_the_original_of_a_copy(run_cli, fmnist, model_file, photos, tmp_path):
    sought = tmp_path / "sought"
    save_image(fmnist.test.images[5, 0], sought / "=5.jpg", quality=95)
    (sought / "bad.png").write_bytes(b"")
    ran = run_cli("search", model_file, sought, photos, "-n", "3", "-o", tmp_path / "found.csv")
    assert ran.code == 0, ran.err
    assert "2 files could not be read" in ran.out
    rows = table(tmp_path / "found.csv")
    hits = [row for row in rows if row["rank"]]
    assert [row["rank"] for row in hits] == ["1", "2", "3"]
    assert (hits[0]["query"], hits[0]["image"]) == ("'=5.jpg", "05.png")
    cosines = [float(row["similarity"]) for row in hits]
    assert 1 >= cosines[0] > 0.99 and cosines == sorted(cosines, reverse=True)
    assert {row["query"] or row["image"]: row["problem"] for row in rows if row["problem"]} == {
        "bad.png": "an empty file", "03x.png": "not an image"
    }  # fmt: skip
    one = run_cli("search", model_file, photos / "07.png", photos)
    assert one.out.splitlines()[1].startswith("07.png,1,07.png,1.0000,")


def test_search_refuses_unreadable_queries(run_cli, model_file, photos):
    ran = run_cli("search", model_file, photos / "03x.png", photos)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "03x.png: not an image. Pass at least one image that can be read." in ran.err
    assert "--number 0: must be 1 or more" in run_cli("search", model_file, photos, photos, "-n", "0").err


def test_dedupe_writes_duplicates_and_deletes_nothing(run_cli, fmnist, model_file, photos, tmp_path):
    images = fmnist.test.images[:, 0]
    save_image(images[2], photos / "copy of 2.bmp")  # larger than the png, with the same pixels
    save_image(images[4], photos / "shoe" / "4.jpg", quality=90)  # it has a label
    before = {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()}
    ran = run_cli("dedupe", model_file, photos, "-o", tmp_path / "pairs.csv")
    assert ran.code == 0, ran.err
    assert "2 of 14 images are redundant, in 2 groups; no file was deleted" in ran.out
    rows = table(tmp_path / "pairs.csv")
    found = [[row["group"], row["keep"], row["duplicate"], row["kind"]] for row in rows]
    assert found[0] == ["1", "copy of 2.bmp", "02.png", "exact"]
    assert found[1] == ["2", "shoe/4.jpg", "04.png", "near"]
    assert 0 < float(rows[1]["difference"]) <= 0.1
    assert (rows[2]["duplicate"], rows[2]["problem"]) == ("03x.png", "not an image")
    assert {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()} == before


def test_dedupe_without_faiss_is_refused_before_embedding(run_cli, model_file, photos, monkeypatch):
    monkeypatch.setattr(embeddings, "EXACT_UP_TO", 12)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(embeddings, "outputs", None)
    ran = run_cli("dedupe", model_file, photos)
    assert (ran.code, ran.out) == (2, "")
    assert "faiss is needed. Run: pip install 'fewlabels[search]'" in ran.err


def test_dedupe_of_an_idx_file(run_cli, fmnist, model_file, tmp_path):
    from tests.data.test_idx import idx_bytes

    images = fmnist.test.images[:40, 0].copy()
    images[33] = images[2]
    (tmp_path / "images-idx3-ubyte").write_bytes(idx_bytes(images))
    ran = run_cli("dedupe", model_file, tmp_path / "images-idx3-ubyte")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[1:] == ["1,2,33,exact,0.000,"]


def test_dedupe_kind_exact_compares_full_size_images(run_cli, model_file, tmp_path):
    large = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8).repeat(28, axis=0).repeat(28, axis=1)
    for name, changed in (("0.bmp", 0), ("1.bmp", 1), ("2.bmp", 0)):
        image = large.copy()
        image[100, 100] += changed
        save_image(image, tmp_path / "frames" / name)
    ran = run_cli("dedupe", model_file, tmp_path / "frames", "-o", tmp_path / "pairs.csv")
    assert ran.code == 0, ran.err
    kinds = {row["duplicate"]: row["kind"] for row in table(tmp_path / "pairs.csv")}
    assert kinds == {"1.bmp": "near", "2.bmp": "exact"}


def test_dedupe_of_arrays_keeps_the_labelled_copy(run_cli, fmnist, model_file, tmp_path):
    np.savez(tmp_path / "some.npz", images=fmnist.test.images[[0, 1, 2, 0]], labels=np.array([-1, 3, 4, 5]))
    ran = run_cli("dedupe", model_file, tmp_path / "some.npz", "-o", tmp_path / "pairs.csv")
    assert ran.code == 0, ran.err
    assert [(row["keep"], row["duplicate"]) for row in table(tmp_path / "pairs.csv")] == [("row 3", "row 0")]
