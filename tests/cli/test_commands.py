"""Test the command line: commands that work, and mistakes that give one line and exit code 2."""

import csv
import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fewlabels.backbones.architectures import ArticleBackbone
from fewlabels.backbones.classifier import Classifier
from fewlabels.backbones.weights import load_classifier, save_backbone, save_classifier
from fewlabels.cli.options import fit_command
from fewlabels.cli.pretrain import collapse_line
from fewlabels.data.dataset import decoded_folder
from fewlabels.data.fashion_mnist import FILES
from fewlabels.training.checkpoints import newest_checkpoint
from tests.data.test_idx import idx_bytes

FIT = ("fit", "fashion-mnist", "--labels", "20", "--strategy", "supervised", "--budget", "1s", "--logger", "none")
COMMANDS = (
    *("article", "check", "fit", "compare", "report", "pretrain", "predict", "suggest"),
    *("embed", "search", "dedupe", "export", "serve", "doctor"),
)
FIT_ON = "fit --budget 2s --logger none --out {folder}/out"
PRETRAIN = "pretrain {npy} --epochs 1 --batch-size 8 --logger none --out {folder}/new"


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    save_classifier(Classifier("article", [str(c) for c in range(10)]), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small folder of Fashion-MNIST files, for tests to damage."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in FILES:
        array = np.zeros((40, 28, 28), np.uint8) if "images" in name else (np.arange(40) % 10).astype(np.uint8)
        (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
    return folder


def written_idx(fmnist, folder: Path) -> Path:
    """Write 600 test images, more than a batch, in the format in which they are distributed."""
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx_bytes(fmnist.test.images[:600, 0])))
    return file


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_80_columns_and_has_an_example(command, run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ran = run_cli(*command, "--help")
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    if command:
        assert f"Example: fewlabels {command[0]}" in ran.out


def test_fit_writes_a_model_that_predict_reads(run_cli, fmnist, tmp_path: Path):
    fitted = run_cli(*FIT, "--out", tmp_path / "fit")
    assert fitted.code == 0, fitted.err
    assert "Expected macro-F1: 0." in fitted.out
    assert "Macro-F1 0." in fitted.out
    result = json.loads((tmp_path / "fit" / "result.json").read_text())
    assert 0 < result["calibration_error"] < 0.5
    assert result["estimate"]["low"] < result["estimate"]["high"]
    model = tmp_path / "fit" / "model.safetensors"
    images = written_idx(fmnist, tmp_path)
    predicted = run_cli("predict", model, images, "-o", tmp_path / "out.csv")
    assert predicted.code == 0, predicted.err
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert len(rows) == 600
    with torch.no_grad():
        logits = load_classifier(model)(fmnist.test.read(slice(50)).float() / 255)
    names = [fmnist.test.class_names[k] for k in logits.argmax(dim=1)]
    assert [row["label"] for row in rows[:50]] == names
    assert float(rows[0]["probability"]) == pytest.approx(logits.softmax(dim=1)[0].max().item(), abs=1e-4)


def test_fit_and_predict_work_on_a_folder_of_photos(run_cli, fmnist, tmp_path: Path):
    photos = tmp_path / "photos"
    for row in range(60):
        name = fmnist.train.labels[row] if row < 50 else "_unlabelled"
        file = photos / str(name) / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(fmnist.train.images[row, 0])
        (picture.resize((40, 50)) if row % 2 else picture).save(file)
    (photos / "0" / "torn.png").write_bytes(b"torn")
    fitted = run_cli("fit", photos, "--strategy", "supervised", "--budget", "1s", "--logger", "none", "--out", tmp_path)
    assert fitted.code == 0, fitted.err
    assert "Left out: 0/torn.png (not an image)" in fitted.out
    assert "No image was set aside for a test" in fitted.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["labels"], result["images"], result["macro_f1"]) == (50, 60, None)
    assert result["left_out"] == {"0/torn.png": "not an image"}
    predicted = run_cli("predict", tmp_path / "model.safetensors", photos)
    assert predicted.code == 0, predicted.err
    rows = list(csv.DictReader(predicted.out.splitlines()))
    assert len(rows) == 61
    assert [(row["image"], row["problem"]) for row in rows if row["problem"]] == [("0/torn.png", "not an image")]
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows if not row["problem"])
    assert {row["unsure"] for row in rows} <= {"", "no", "unsure"}
    assert "1 files could not be read" in predicted.err


def test_predict_escapes_a_name_that_is_a_formula(run_cli, model_file: Path, tmp_path: Path):
    (tmp_path / "p").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "p" / "=cmd|x.png")
    ran = run_cli("predict", model_file, tmp_path / "p")
    assert ran.out.splitlines()[1].startswith("'=cmd|x.png,")


def test_predict_gives_the_same_for_a_folder_and_an_idx_file(run_cli, fmnist, model_file: Path, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(fmnist.test.read(slice(3))):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    from_folder = run_cli("predict", model_file, folder)
    from_idx = run_cli("predict", model_file, written_idx(fmnist, tmp_path))
    assert from_folder.code == 0, from_folder.err
    lines = [line.partition(",")[2] for line in from_folder.out.splitlines()]
    assert lines == [line.partition(",")[2] for line in from_idx.out.splitlines()[:4]]


def test_pretrain_writes_a_backbone_that_fit_probes(run_cli, fmnist, tmp_path: Path):
    np.save(tmp_path / "images.npy", fmnist.train.first_k(600).images)
    pretrain = ("pretrain", tmp_path / "images.npy", "--epochs", "1", "--logger", "none", "--out", tmp_path / "run")
    ran = run_cli(*pretrain)
    assert ran.code == 0, ran.err
    assert f"Backbone: {tmp_path}/run/backbone.safetensors" in ran.out
    assert "Collapse: too few steps to detect it" in ran.out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["by_epoch"] == []
    assert result["decided"]["method"] == "mocov2"
    assert "crop_area" in result["views"]
    assert result["engine"]["threads"] >= 1
    assert len(result["curve"]["values"]) == 2
    assert result["guard"]["verdicts"] == []
    again = run_cli(*pretrain, "--resume")  # all steps are done
    assert again.code == 0, again.err
    fitted = run_cli(*FIT, "--strategy", "probe", "--from", tmp_path / "run", "--out", tmp_path / "fit")
    assert fitted.code == 0, fitted.err
    assert json.loads((tmp_path / "fit" / "result.json").read_text())["candidates"].keys() == {"probe"}


def test_collapse_line_has_verdict_restart_or_number_of_steps():
    history = [{"step": 100}, {"step": 125}]
    healthy = {"verdicts": [], "restarts": 0, "suspected": False}
    assert collapse_line({**healthy, "readings": history}) == "Collapse: none found."
    assert "too few steps" in collapse_line({**healthy, "readings": history[:1]})
    assert "too few steps" in collapse_line({**healthy, "readings": []})
    collapsed = {**healthy, "verdicts": ["dead units at step 125"], "readings": history}
    assert collapse_line({**collapsed, "suspected": True}).endswith("dead units at step 125")
    assert collapse_line({**collapsed, "restarts": 1}).endswith("not again after the restart.")


def test_fit_prints_class_names_in_brackets_unchanged(run_cli, fmnist, tmp_path: Path):
    rows = ["path,label,split"]
    for row in range(24):
        Image.fromarray(fmnist.train.images[row, 0]).save(tmp_path / f"{row}.png")
        rows.append(f"{row}.png,{('[/x]', '[bold]')[row % 2]},{'test' if row < 8 else 'train'}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    options = ("--strategy", "supervised", "--budget", "1s", "--logger", "none", "--seed", "-1")
    ran = run_cli("fit", tmp_path / "table.csv", *options, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "[/x]" in ran.out and "[bold]" in ran.out
    assert "Labels given: 16, all there are" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_fit_escapes_a_class_name_that_is_not_text(run_cli, fmnist, tmp_path: Path):
    for row in range(24):
        name = ("b", os.fsdecode(b"caf\xe9"))[row % 2]
        file = tmp_path / "photos" / ("test" if row < 8 else "train") / name / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[row, 0]).save(file)
    ran = run_cli(*FIT[:1], tmp_path / "photos", *FIT[4:], "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert r"caf\udce9" in ran.out
    assert "Macro-F1" in ran.out
    predicted = run_cli("predict", tmp_path / "out" / "model.safetensors", tmp_path / "photos" / "test" / "b")
    assert predicted.code == 0, predicted.err


def test_fit_command_names_a_free_folder(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert fit_command(Path("my table.csv")) == "fewlabels fit 'my table.csv'"
    (tmp_path / "runs" / "fit").mkdir(parents=True)
    assert fit_command(Path("a.csv")) == "fewlabels fit a.csv --out runs/fit2"


def test_pretrain_on_a_full_disk_leaves_a_complete_checkpoint(fmnist, tmp_path: Path):
    np.save(tmp_path / "images.npy", fmnist.train.first_k(2560).images)
    disk = tmp_path / "disk"
    disk.mkdir()
    pretrain = [
        sys.executable,
        "-m",
        "fewlabels.cli.app",
        "pretrain",
        str(tmp_path / "images.npy"),
        "--method",
        "simsiam",
    ]
    pretrain += ["--epochs", "5", "--tune", "off", "--checkpoint-seconds", "0"]
    pretrain += ["--out", str(disk / "run")]
    # A checkpoint has about 13 MB, so a few are saved before the disk is full.
    script = (
        f'mount -t tmpfs -o size=40m none {disk} || exit 77; "$@"; code=$?; cp -r {disk}/run {disk}/../copy; exit $code'
    )
    if not shutil.which("unshare"):
        pytest.skip("needs unshare to mount a small disk")
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", *pretrain], capture_output=True, text=True)
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip("mounting a small disk is not permitted")
    assert ran.returncode == 2, ran.stderr
    assert "no room left on the disk" in ran.stderr
    assert ran.stderr.count("\n") == 1
    found = newest_checkpoint(tmp_path / "copy" / "checkpoints", say=pytest.fail)
    assert found is not None
    assert not list((tmp_path / "copy").rglob("*.tmp"))


def test_pretrain_saves_on_ctrl_c_and_prints_the_command_to_resume(fmnist, tmp_path: Path):
    np.save(tmp_path / "images.npy", fmnist.train.first_k(2560).images)
    command = [sys.executable, "-m", "fewlabels.cli.app", "pretrain", str(tmp_path / "images.npy"), "--epochs", "500"]
    command += ["--tune", "off", "--logger", "none", "--checkpoint-seconds", "0.2", "--out", str(tmp_path / "run")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in errors
    step = errors.split("Stopped after step ")[1].split()[0]
    assert (tmp_path / "run" / "checkpoints" / f"step-{step}").is_dir()
    assert "Resume with: fewlabels pretrain" in errors
    assert errors.rstrip().endswith("--resume")


def test_doctor_prints_versions_threads_and_folders(run_cli, fmnist):
    (decoded_folder() / "some").mkdir(parents=True)
    (decoded_folder() / "some" / "images.bin").write_bytes(bytes(3 * 2**20))
    ran = run_cli("doctor")
    assert ran.code == 0
    assert torch.__version__.partition("+")[0] in ran.out
    assert "threads" in ran.out
    assert str(fmnist.folder) in ran.out.replace("\n", "")
    assert ":3MiB;" in "".join(ran.out.split())  # without line breaks


# Bad input: a function that damages files, the command, and text that the message must contain.
Damage = Callable[[Path, Path], None]


def nothing(data: Path, folder: Path) -> None:
    pass


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(data: Path, folder: Path) -> None:
        (data / name).write_bytes(change((data / name).read_bytes()))

    return damage


def packed(array: np.ndarray) -> Callable[[bytes], bytes]:
    return lambda _: gzip.compress(idx_bytes(array.astype(np.uint8)))


def remove(data: Path, folder: Path) -> None:
    (data / "train-images-idx3-ubyte.gz").unlink()


def rgb_backbone(data: Path, folder: Path) -> None:
    save_backbone(ArticleBackbone(channels=3), folder / "rgb.safetensors", "article")


def pickled_model(data: Path, folder: Path) -> None:
    torch.save({"weights": 1}, folder / "pickle.safetensors")


def other_safetensors(data: Path, folder: Path) -> None:
    save_file({"a": torch.zeros(1)}, folder / "other.safetensors")


def photos(data: Path, folder: Path) -> None:
    for row, name in enumerate(("cat/0.png", "cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "dog/5.png", "6.png")):
        file = folder / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(28, 28) + np.uint8(row)).save(file)


def link_out(data: Path, folder: Path) -> None:
    photos(data, folder)
    (folder / "photos" / "cat" / "link.png").symlink_to(folder / "images.npy")


def link_to_folder(data: Path, folder: Path) -> None:
    photos(data, folder)
    (folder / "photos" / "loop").symlink_to(data)


def unlabelled(data: Path, folder: Path) -> None:
    photos(data, folder)
    shutil.rmtree(folder / "photos" / "cat")
    shutil.rmtree(folder / "photos" / "dog")


def one_class(data: Path, folder: Path) -> None:
    photos(data, folder)
    shutil.rmtree(folder / "photos" / "cat")


def all_torn(data: Path, folder: Path) -> None:
    photos(data, folder)
    for file in (folder / "photos").rglob("*.png"):
        file.write_bytes(b"torn")


def table(*rows: str) -> Damage:
    return lambda data, folder: (folder / "t.csv").write_text("".join(f"{row}\n" for row in rows)) and None


def latin_table(data: Path, folder: Path) -> None:
    (folder / "t.csv").write_bytes("path,label\na.png,café\n".encode("latin-1"))


def torn(name: str) -> Damage:
    return lambda data, folder: (folder / name).write_bytes(b"PAR1 torn") and None


def arrays(**named: np.ndarray) -> Damage:
    return lambda data, folder: np.savez(folder / "t.npz", **named)


def divided_group(data: Path, folder: Path) -> None:
    photos(data, folder)
    table("path,split,group", "photos/cat/0.png,train,p", "photos/dog/3.png,test,p")(data, folder)


def all_tested(data: Path, folder: Path) -> None:
    photos(data, folder)
    table("path,label,split", "photos/cat/0.png,cat,test", "photos/dog/3.png,dog,test")(data, folder)


def a_file(data: Path, folder: Path) -> None:
    (folder / "file").write_text("user file")


def empty_folder(data: Path, folder: Path) -> None:
    (folder / "empty").mkdir()


def a_run(data: Path, folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "backbone.safetensors").write_text("the user's own")


def floats(data: Path, folder: Path) -> None:
    np.save(folder / "images.npy", np.zeros((40, 28, 28), np.float32))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def large(data: Path, folder: Path) -> None:
    np.save(folder / "images.npy", noise(40, 64, 64))


def tiny(data: Path, folder: Path) -> None:
    np.save(folder / "images.npy", noise(40, 8, 8))


def all_the_same(data: Path, folder: Path) -> None:
    np.save(folder / "images.npy", np.full((40, 28, 28), 7, np.uint8))


def two_images_repeated(data: Path, folder: Path) -> None:
    images = np.load(folder / "images.npy")
    np.save(folder / "images.npy", images[np.arange(40) % 2])


GRAY = np.zeros((4, 8, 8), np.uint8)
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
BAD = [
    (
        "unknown dataset",
        nothing,
        "fit fashion-mist",
        "no such file or folder. Did you mean fashion-mnist",
    ),
    ("a folder without images", empty_folder, "fit {folder}/empty", "empty: no image here (looked for .bmp"),
    ("a link to another folder", link_out, "FIT_ON photos", "link.png: a link that leads out of"),
    ("a link to a folder", link_to_folder, "FIT_ON photos", "loop: a link to a folder"),
    ("nothing labelled", unlabelled, "FIT_ON photos", "photos: no image has a label"),
    ("one class", one_class, "FIT_ON photos", "Only one class is labelled"),
    ("nothing readable", all_torn, "FIT_ON photos", "6.png: not an image. No other sampled image"),
    ("neither folder nor table", a_file, "fit {folder}/file", "file: neither a folder nor a table"),
    ("a table without paths", table("file,label", "0.png,cat"), "FIT_ON t.csv", "no column 'path'; found file, label"),
    ("a table with a typing error", table("paht,label", "0.png,cat"), "FIT_ON t.csv", "Did you mean paht?"),
    ("an empty table", table("path,label"), "FIT_ON t.csv", "t.csv: no rows"),
    ("an empty file", table(), "FIT_ON t.csv", "no column 'path'; found none"),
    (
        "a short row",
        table("path,label", "a.png,cat", "b.png"),
        "FIT_ON t.csv",
        "t.csv, row 3: 1 cells, the header has 2",
    ),
    ("two equal columns", table("path,label,label", "a.png,a,b"), "FIT_ON t.csv", "two columns have the same name"),
    ("a path twice", table("path", "a.png", "a.png"), "FIT_ON t.csv", "row 3: a.png is in row 2, too"),
    ("a row without a path", table("path,label", ",cat"), "FIT_ON t.csv", "row 2: no path"),
    ("a path outside of the folder", table("path", "../data/x.png"), "FIT_ON t.csv", "row 2: ../data/x.png is outside"),
    ("an absolute path", table("path", "/etc/passwd"), "FIT_ON t.csv", "row 2: /etc/passwd is outside"),
    ("a drive", table("path", "C:\\x.png"), "FIT_ON t.csv", "is outside"),
    (
        "an unknown split",
        table("path,split", "a.png,valid"),
        "FIT_ON t.csv",
        "row 2: split 'valid' is not train or test",
    ),
    ("a file that is not there", table("path,label", "a.png,x"), "FIT_ON t.csv", "a.png: [Errno 2]"),
    ("an open quote", table("path", '"a.png'), "FIT_ON t.csv", "t.csv: not a whole table"),
    ("a table of another encoding", latin_table, "FIT_ON t.csv", "t.csv: not UTF-8 text"),
    ("a torn parquet", torn("t.parquet"), "FIT_ON t.parquet", "t.parquet: not a whole parquet file"),
    ("a torn npz", torn("t.npz"), "FIT_ON t.npz", "t.npz: not a whole .npz file"),
    ("a torn hdf5", torn("t.h5"), "FIT_ON t.h5", "t.h5: not a whole HDF5 file"),
    ("arrays without images", arrays(x=np.zeros(3)), "FIT_ON t.npz", "t.npz, x: float64 (3,), not numbers [N, H, W]"),
    ("arrays of other lengths", arrays(images=GRAY, labels=np.arange(3)), "FIT_ON t.npz", "3 labels for 4 images"),
    ("a pickle in an npz", arrays(images=np.array([{}], object)), "FIT_ON t.npz", "not a whole .npz file of numbers"),
    ("a size for arrays", arrays(images=GRAY), "FIT_ON t.npz --size 28", "Leave out --size"),
    ("a size for a .npy", nothing, PRETRAIN + " --size 28", "Leave out --size"),
    ("a size of nothing", nothing, "FIT_ON photos --size 2", "--size 2: must be 8 or more"),
    ("images alone", arrays(images=GRAY), "FIT_ON t.npz", "t.npz: no image has a label. Add labels"),
    ("more labels than there are", photos, "FIT_ON photos --labels 7", "Ask for 1 to 6"),
    (
        "a backbone of another size",
        photos,
        "FIT_ON photos --backbone article --size 40",
        "backbone article takes 28x28",
    ),
    ("an empty test set", photos, "compare {folder}/photos", "6 labelled images give a test set of 0; 10 are needed"),
    ("a group on both sides", divided_group, "FIT_ON t.csv", "group p: images in training and in test"),
    ("all for the test", all_tested, "FIT_ON t.csv", "every image is for the test"),
    (
        "a wanted precision of 2",
        nothing,
        "predict {model} x.png --precision 2",
        "must be in 0.5 to 0.99",
    ),
    ("missing file", remove, "FIT", f"{IMAGES}: no such file"),
    ("missing folder", nothing, "fit fashion-mnist --data {folder}/nowhere", "nowhere/train-images"),
    ("truncated gzip", rewrite(IMAGES, lambda raw: raw[:-20]), "FIT", f"{IMAGES}: the gzip file is truncated"),
    ("wrong magic number", rewrite(IMAGES, lambda raw: b"PK\3\4" + raw), "FIT", "wrong magic number 504b0304"),
    ("images and labels swapped", rewrite(IMAGES, packed(np.zeros(40))), "FIT", "swapped"),
    ("different lengths", rewrite(LABELS, packed(np.zeros(39))), "FIT", "40 images but 39 labels"),
    ("label outside the classes", rewrite(LABELS, packed(np.full(40, 10))), "FIT", "row 0: label 10"),
    ("no labels", nothing, "FIT --labels 0", "labels 0"),
    ("more labels than data", nothing, "FIT --labels 41", "Ask for 1 to 40"),
    ("labels not a number", nothing, "FIT --labels many", "'--labels'"),
    ("one label", nothing, "FIT --labels 1", "Only one class is labelled"),
    ("no time", nothing, "FIT --budget 0s", "budget 0 s: must be above 0"),
    ("a time without a unit", nothing, "FIT --budget 10", "--budget 10: not a time. Write it like 90s"),
    ("unknown strategy", nothing, "FIT --strategy selftrian", "Did you mean selftrain"),
    ("nothing to probe", nothing, "FIT --strategy probe", "Name its run with --from"),
    ("no seeds", nothing, "article --seeds 0", "--seeds 0"),
    ("unknown draw", nothing, "FIT --draw best", "--draw best"),
    ("unknown logger", nothing, "FIT --logger paper", "--logger paper: no such logger"),
    ("unknown device", nothing, "FIT --device abacus", "--device abacus: not available"),
    ("unknown command", nothing, "fitt", "No such command 'fitt'"),
    ("unknown option", nothing, "FIT --lables 3", "--lables"),
    ("folder under a file", a_file, "FIT --out {folder}/file/out", "file/out/.fewlabels: cannot be written"),
    ("article under a file", a_file, "article --quick --out {folder}/file/out", "cannot be written"),
    ("other architecture", rgb_backbone, "FIT --from {folder}/rgb.safetensors", "another architecture"),
    ("missing weights", nothing, "FIT --from {folder}/none.safetensors", "none.safetensors: no such model file"),
    ("pickled model", pickled_model, "predict {folder}/pickle.safetensors x.png", "not a whole safetensors file"),
    ("file of another program", other_safetensors, "predict {folder}/other.safetensors x.png", "holds no classifier"),
    ("missing model", nothing, "predict {folder}/none x.png", "none: no such model file"),
    ("a folder for a table", nothing, "predict {model} {folder} -o .", "Choose another name with --out"),
    ("no such array to check", nothing, "check {folder}/none.npz", "none.npz: no such file or folder"),
    ("a folder for a model", nothing, "export . --to onnx", "no such model file"),
    ("missing images", nothing, "predict {model} {folder}/none", "none: no such file or folder"),
    ("empty folder", empty_folder, "predict {model} {folder}/empty", "no image here"),
    ("a folder that holds a run", a_run, "PRETRAIN", "new: holds a run. Add --resume"),
    ("no run to resume", nothing, "PRETRAIN --resume", "new: no run to resume"),
    ("no such npy", nothing, "pretrain {folder}/none.npy --logger none", "none.npy: no such file"),
    ("npy of floats", floats, "PRETRAIN", "images.npy: pixels are float32, not uint8"),
    (
        "images of a size the backbone does not take",
        large,
        "PRETRAIN --backbone article",
        "views of 64x64 pixels: backbone article",
    ),
    ("unknown method", nothing, "PRETRAIN --method simsim", "method 'simsim': no such method. Did you mean simsiam"),
    ("unknown preset", nothing, "PRETRAIN --preset moco", "--preset moco: no such choice"),
    ("unknown network of timm", nothing, "PRETRAIN --backbone timm/resnet51", "timm/resnet50"),
    ("images that are all the same", all_the_same, "PRETRAIN", "all the same. Pass images that differ"),
    ("two images repeated", two_images_repeated, "PRETRAIN", "5% of 40 images are distinct"),
    ("a probe without labels", nothing, "PRETRAIN --probe", "has no labels to use"),
    ("auto with a rate", nothing, "PRETRAIN --method auto --lr 0.1", "--method auto: selects the settings"),
    ("no initial weights", nothing, "PRETRAIN --start-from {folder}/none.safetensors", "no such model file"),
    (
        "weights of another kind",
        a_file,
        "PRETRAIN --backbone timm/resnet18 --start-from {folder}/file",
        "no such .safe",
    ),
    ("a batch of two", nothing, "PRETRAIN --batch-size 2", "smaller --accumulate. To continue anyway, add --resume"),
    ("collapse by half", nothing, "PRETRAIN --on-collapse half", "--on-collapse half: no such choice"),
    ("images too small", tiny, "PRETRAIN --backbone timm/convnext_atto", "views of 8x8 pixels: backbone timm"),
    ("unknown backbone", nothing, "PRETRAIN --backbone vgg", "backbone 'vgg': no such backbone"),
    ("unknown views", nothing, "PRETRAIN --views mirror", "--views mirror: no such choice"),
    ("colour views of gray images", nothing, "PRETRAIN --views rgb-small", "needs 3 channels; the images have 1"),
    ("unknown precision", nothing, "PRETRAIN --precision 16", "--precision 16: no such choice"),
    ("rate below zero", nothing, "PRETRAIN --lr -1", "lr -1.0: must be above 0"),
    ("unequal parts", nothing, "PRETRAIN --accumulate 3", "batch size 8: cannot be cut into 3 equal parts"),
    ("more parts than images", nothing, "PRETRAIN --accumulate 50 --batch-size 100", "needs at least 100"),
    ("no processes", nothing, "PRETRAIN --processes 0", "--processes 0: must be 1 or more"),
    ("tune by half", nothing, "PRETRAIN --tune half", "--tune half: no such choice"),
    ("csv under a file", a_file, "predict {model} {data}/t10k-images-idx3-ubyte.gz -o {folder}/file/o.csv", "o.csv"),
]


@pytest.mark.parametrize(("damage", "command", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_mistake_gives_one_line_and_changes_no_file(
    run_cli, data: Path, model_file: Path, tmp_path: Path, damage, command: str, message: str
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_text("the user's own")
    np.save(tmp_path / "images.npy", noise(40, 28, 28))
    damage(data, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    command = command.replace("PRETRAIN", PRETRAIN, 1)
    command = command.replace("FIT_ON ", f"{FIT_ON} {{folder}}/", 1)
    line = command.replace("FIT", " ".join(FIT) + " --out {folder}/out --data {data}", 1)
    ran = run_cli(
        *(
            word.format(folder=tmp_path, data=data, model=model_file, npy=tmp_path / "images.npy")
            for word in line.split()
        )
    )
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("fewlabels: ")
    assert message in ran.err
    assert "Traceback" not in ran.out + ran.err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".fewlabels"}
    assert after == before


def fit_with_file_limit(data: Path, out: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Run fit in a process that may write no file larger than ``limit`` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "fewlabels.cli.app", *FIT, "--data", str(data), "--out", str(out)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )


def assert_disk_full_message(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 2, ran.stderr
    assert "no room left on the disk" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_fit_with_a_failed_write_leaves_the_old_model_unchanged(data: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_text("the user's own")
    assert_disk_full_message(fit_with_file_limit(data, out, limit=100_000))  # a model has 640 kB
    assert (out / "model.safetensors").read_text() == "the user's own"
    assert sorted(path.name for path in out.iterdir()) == [".fewlabels", "model.safetensors", "stages"]
    assert not [path for path in out.rglob("*") if path.suffix in (".tmp", ".safetensors") and path.parent != out]


def test_fit_on_a_full_disk_gives_one_line(data: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    fit = [sys.executable, "-m", "fewlabels.cli.app", *FIT, "--data", str(data), "--out", str(disk / "out")]
    script = f'mount -t tmpfs -o size=200k none {disk} || exit 77; "$@"; code=$?; ls -A {disk}/out; exit $code'
    if not shutil.which("unshare"):
        pytest.skip("needs unshare to mount a small disk")
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", *fit], capture_output=True, text=True)
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip("mounting a small disk is not permitted")
    assert_disk_full_message(ran)
    assert ran.stdout.splitlines()[-2:] == [".fewlabels", "stages"]


def test_article_prints_the_command_to_resume_on_ctrl_c(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "fewlabels.cli.app",
        "article",
        "--quick",
        "--logger",
        "none",
        "--out",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test that runs in the background, as under nohup, ignores SIGINT, and its child processes inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / ".fewlabels").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(4)  # into the first training
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Stopped. Completed work is saved. Resume with: fewlabels article --quick" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.tmp"))


def test_compare_without_ray_prints_the_install_command(run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fewlabels.compare.on_ray", raising=False)
    ran = run_cli("compare", "fashion-mnist", "--engine", "ray")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "fewlabels: --engine ray: ray is not installed. Run: pip install 'fewlabels[ray]'\n"
    assert run_cli("compare", "fashion-mnist", "--engine", "rai").err.count("Choose one of local, ray.") == 1
