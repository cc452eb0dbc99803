"""Every fault that was planted into a folder of real images is found, and nothing of it is changed."""

import csv
import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels.audit import file_facts as facts
from fewlabels.audit import scan as check
from fewlabels.audit.scan import KINDS, Finding, Looked, clean_rows, findings, looked_at
from fewlabels.data.dataset import opened
from fewlabels.data.listing import listed
from tests.data.make_mess import RARE, Planted, make_channels, make_leaky_table, make_mess


def looked(data: Path, cache: Path) -> Looked:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewlabels.data.dataset.user_cache_path", lambda name: cache)
        return looked_at(str(data))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def planted(fmnist, tmp_path_factory) -> Planted:
    return make_leaky_table(make_mess(tmp_path_factory.mktemp("mess") / "photos", fmnist.train))


@pytest.fixture(scope="module")
def seen(planted, tmp_path_factory) -> Looked:
    return looked(planted.folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def found(seen) -> list[Finding]:
    return findings(seen)


@pytest.fixture(scope="module")
def checked(planted, tmp_path_factory) -> Path:
    """The folder of a check of the table, by the command line; its clean table lies above the images."""
    before = contents(planted.folder)
    out = tmp_path_factory.mktemp("out")
    clean = planted.folder.parent / "clean.csv"
    env = {**os.environ, "COLUMNS": "60", "XDG_CACHE_HOME": str(out / "cache")}
    command = [sys.executable, "-m", "fewlabels.cli.app", "check", str(planted.table), "--out", str(out)]
    ran = subprocess.run([*command, "--fix", str(clean)], env=env, capture_output=True, text=True)
    (out / "said.txt").write_text(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    assert contents(planted.folder) == before
    return out


@pytest.fixture(scope="module")
def table_found(checked) -> list[Finding]:
    return [Finding(**each) for each in json.loads((checked / "check.json").read_text())["findings"]]


def images(found: list[Finding], *kinds: str) -> list[str]:
    return [finding.image for finding in found if finding.kind in kinds]


def pairs(found: list[Finding], *kinds: str) -> set[frozenset[str]]:
    return {frozenset((finding.image, finding.other)) for finding in found if finding.kind in kinds}


def planted_pairs(copies: dict[str, str]) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in copies.items()}


def test_all_images_are_looked_at_and_nothing_else(planted, seen):
    assert sorted(seen.listing.names) == sorted(planted.labels)
    assert 1200 <= len(planted.labels) <= 1500
    for name in planted.ignored:
        assert (planted.folder / name).is_file()
        assert name not in seen.listing.names


def test_every_file_that_cannot_be_read_is_found(planted, found):
    assert len(planted.corrupt) == 20
    assert sorted(images(found, "corrupt")) == sorted(planted.corrupt)


def test_every_constant_image_is_found(planted, found):
    assert sorted(images(found, "constant")) == sorted(planted.constant)


def test_every_duplicate_is_found_and_no_other_image(planted, found):
    assert len(planted.duplicates) == 50
    assert pairs(found, "duplicate", "conflict") == planted_pairs(planted.duplicates)


def test_copies_with_other_labels_are_said_so(planted, found):
    assert len(planted.conflicting) == 15
    assert pairs(found, "conflict") == planted_pairs({copy: planted.duplicates[copy] for copy in planted.conflicting})


def test_near_duplicates_are_found_without_false_alarms(planted, found):
    wanted, got = planted_pairs(planted.near), pairs(found, "near-duplicate")
    assert len(wanted) == 30
    assert len(wanted & got) >= 27
    assert len(got - wanted) <= 3  # real images have a few of their own


def test_flipped_labels_are_among_the_first_doubts(planted, found):
    first = images(found, "doubtful label")[: len(planted.flipped)]
    assert len(planted.flipped) == 45
    assert len(set(first) & set(planted.flipped)) >= 0.6 * 45


def test_foreign_images_are_listed_among_few_others(planted, found, seen):
    listed_ones = images(found, "foreign")
    assert set(planted.foreign) <= set(listed_ones)
    assert len(listed_ones) <= 0.02 * len(seen.listing.names)


def test_a_class_with_few_labels_is_named(found):
    about = {finding.kind: finding for finding in found if not finding.image}
    assert about["few labels"].label == RARE
    assert about["imbalance"].label == RARE


def test_leaks_are_found(planted, table_found):
    leaks = [finding for finding in table_found if finding.kind == "leak"]
    assert len(planted.leaks) == 20
    copies = {(finding.image, finding.other) for finding in leaks}
    assert len(copies & set(planted.leaks.items())) >= 19
    of_groups = {finding.image for finding in leaks if not finding.other}
    assert of_groups == {name for members in planted.divided.values() for name in members}


def test_a_folder_without_a_split_does_not_leak(found):
    assert images(found, "leak") == []


def test_nothing_is_wrong_with_sound_images(fmnist, tmp_path):
    for row in range(100):
        file = tmp_path / "photos" / f"class {row % 2}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[np.flatnonzero(fmnist.train.labels == row % 2 * 8)[row], 0]).save(file)
    found = findings(looked(tmp_path / "photos", tmp_path / "cache"))
    assert {finding.kind for finding in found} <= {"doubtful label", "foreign"}


# The clean table


@pytest.fixture(scope="module")
def clean(planted, checked) -> Path:
    return planted.folder.parent / "clean.csv"


def cells(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row["path"].removeprefix("./").removeprefix("photos/"): row for row in csv.DictReader(file)}


def test_the_clean_table_goes_without_the_worst(planted, clean):
    rows = cells(clean)
    assert not rows.keys() & set(planted.corrupt + planted.constant)
    for copy, original in planted.duplicates.items():
        assert len(rows.keys() & {copy, original}) == 1
    for copy in planted.conflicting:
        (kept,) = rows.keys() & {copy, planted.duplicates[copy]}
        assert rows[kept]["label"] == ""
    for members in planted.divided.values():
        assert not rows.keys() & set(members)
    assert set(planted.foreign) <= rows.keys()
    assert sum("doubtful label" in rows[name]["note"] for name in planted.flipped if name in rows) >= 27
    untouched = rows.keys() - planted.duplicates.keys() - set(planted.duplicates.values())
    assert all(rows[name]["label"] == planted.labels[name] for name in untouched)


def test_near_duplicates_are_kept_but_for_those_across_the_split(planted, seen, found, clean):
    kept = {name for name, *_ in clean_rows(seen, found)}
    assert {*planted.near, *planted.near.values()} <= kept
    rows = cells(clean)
    across = set(planted.near) & set(planted.leaks)
    assert len(across) == 10
    assert len(across & rows.keys()) <= 1
    assert {planted.leaks[name] for name in across} <= rows.keys()


def test_the_clean_table_is_a_table(planted, clean, run_cli, tmp_path):
    names = listed(clean).names
    assert all((clean.parent / name).is_file() for name in names)
    assert any(Path(name).name.startswith((" ", "=", "-", "<b>")) for name in names)
    data = opened(str(clean))
    assert data.failed == {}
    assert data.test is not None
    fit = ("fit", clean, "--strategy", "supervised", "--budget", "2s", "--logger", "none", "--out", tmp_path / "fit")
    fitted = run_cli(*fit)
    assert fitted.code == 0, fitted.err
    assert "Macro-F1" in fitted.out


def test_what_is_clean_has_nothing_more_to_leave_out(clean, tmp_path, monkeypatch):
    monkeypatch.setattr("fewlabels.audit.scan.doubtful", lambda *_, **__: [])
    again = looked(clean, tmp_path / "cache")
    found = findings(again)
    assert len(list(clean_rows(again, found))) == len(again.listing.names)


def test_what_is_written_and_said(checked, planted):
    result = json.loads((checked / "check.json").read_text())
    assert result["counts"]["images"] == len(planted.labels)
    assert result["counts"]["readable"] == len(planted.labels) - 20
    assert sum(result["sizes"].values()) == result["counts"]["readable"]
    assert {"PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"} == set(result["formats"])
    assert set(result["bits"]) == {"8", "16"}
    assert set(result["channels"]) == {"1", "3"}
    assert {finding["kind"] for finding in result["findings"]} == set(result["found"]) <= set(KINDS)
    assert result["classes"][RARE] == 3
    said = (checked / "said.txt").read_text()
    assert "20" in next(line for line in said.splitlines() if "corrupt" in line)
    table = [line for line in said.splitlines() if line[:1] in "┃│┏┡└├"]
    assert table
    assert max(map(len, table)) <= 60
    assert (checked / "check.html").is_file()


# Other data


def test_images_of_five_channels(fmnist, tmp_path):
    folder = make_channels(tmp_path / "photos", fmnist.train)
    Image.fromarray(fmnist.train.images[0, 0]).save(folder / "gray.png")
    found = findings(looked(folder, tmp_path / "cache"))
    assert len(pairs(found, "duplicate")) == 1
    assert [(each.image, each.why) for each in found if each.kind == "channels"] == [
        ("gray.png", "1 channels, the others have 5")
    ]


def test_arrays_are_checked_by_row(fmnist, tmp_path):
    some = fmnist.train.first_k(80)
    pixels, labels = some.images.copy(), some.labels.copy()
    pixels[7], pixels[9] = pixels[3], 0
    labels[7] = (labels[3] + 1) % 10
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)
    found = findings(looked_at(str(tmp_path / "images.npz")))
    assert pairs(found, "conflict") == {frozenset(("row 3", "row 7"))}
    assert images(found, "constant") == ["row 9"]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_very_few_images(fmnist, tmp_path, number):
    for row in range(number):
        file = tmp_path / "photos" / str(row % 2) / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[row, 0]).save(file)
    found = findings(looked(tmp_path / "photos", tmp_path / "cache"))
    assert {finding.kind for finding in found} <= {"few labels"}


def test_all_images_alike(tmp_path, run_cli):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for row in range(3):
        Image.new("L", (28, 28), 9).save(tmp_path / "photos" / "a" / f"{row}.png")
    ran = run_cli("check", tmp_path / "photos", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "constant" in ran.out


def test_fashion_mnist_by_name(run_cli, fmnist, tmp_path, monkeypatch):
    from fewlabels.data.fashion_mnist import Splits

    few = Splits(fmnist.train.first_k(300), fmnist.test.first_k(60), fmnist.folder)
    few.test.images = few.test.images.copy()
    few.test.images[5] = few.train.images[17]
    monkeypatch.setattr("fewlabels.audit.scan.fashion_mnist", lambda folder, say: few)
    ran = run_cli("check", "fashion-mnist", "--out", tmp_path)
    assert ran.code == 0, ran.err
    result = json.loads((tmp_path / "check.json").read_text())
    leaks = {(each["image"], each["other"]) for each in result["findings"] if each["kind"] == "leak"}
    assert ("train row 17", "test row 5") in leaks


def test_names_that_are_no_text(fmnist, tmp_path, run_cli):
    folder = tmp_path / "photos"
    folder.mkdir()
    for row, name in zip((0, 0, 1), (b"a.png", b"\x1b[31mred\n.png", b"\xff.png"), strict=True):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            Image.fromarray(fmnist.train.images[row, 0]).save(file, "PNG")
    ran = run_cli("check", folder, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "\x1b[31m" not in ran.out
    assert "red\\n.png" in ran.out.replace("\n", "").replace(" ", "")
    refused = run_cli("check", folder, "--fix", folder / "clean.csv", "--out", tmp_path / "out")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "no table can hold" in refused.err


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        ("{folder}/below/clean.csv", "does not lie in"),
        ("{folder}/../elsewhere/clean.csv", "does not lie in"),
        ("{folder}/clean.txt", "Let its name end in .csv"),
        ("{folder}/mine.csv", "is there and no clean table"),
    ],
)
def test_a_clean_table_in_the_wrong_place(fmnist, tmp_path, run_cli, fix, said):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "mine.csv").write_text("path,label\na.png,cat\n")
    Image.fromarray(fmnist.train.images[0, 0]).save(folder / "a.png")
    before = contents(tmp_path)
    ran = run_cli("check", folder, "--fix", fix.format(folder=folder), "--out", tmp_path / "out")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert said in ran.err
    assert contents(tmp_path) == before


def test_only_files_can_be_listed_in_a_clean_table(fmnist, tmp_path, run_cli):
    np.savez(tmp_path / "images.npz", images=fmnist.train.images[:9])
    for data in (tmp_path / "images.npz", "fashion-mnist"):
        ran = run_cli("check", data, "--fix", tmp_path / "clean.csv", "--out", tmp_path / "out")
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "no image files that a table could list" in ran.err


def test_a_file_that_can_no_longer_be_read_is_told(fmnist, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for row in range(4):
        Image.fromarray(fmnist.train.images[row, 0]).save(folder / f"{row}.png")
    looked(folder, tmp_path / "cache")
    of_item = facts._of_item
    monkeypatch.setattr(facts, "_of_item", lambda item: "no" if str(item).endswith("2.png") else of_item(item))
    again = findings(looked(folder, tmp_path / "cache"))
    assert [(finding.image, finding.why) for finding in again if finding.kind == "corrupt"] == [("2.png", "no")]


def test_a_worker_that_is_killed_does_not_end_the_check(monkeypatch):
    monkeypatch.setattr(check, "WORKERS_FROM", 2)
    monkeypatch.setattr(check, "usable_cores", lambda: 2)
    monkeypatch.setattr(check, "CHUNK", 1)

    class Pool:
        def map(self, function, chunks):
            yield function(chunks[0])
            raise BrokenProcessPool

    monkeypatch.setattr(check, "workers", lambda: nullcontext(Pool()))
    assert check._facts([b"", b"no", b""], lambda done, of: None) == ["an empty file", "not an image", "an empty file"]


def test_labels_that_were_changed_in_a_clean_table_are_not_lost(fmnist, tmp_path, run_cli):
    folder = tmp_path / "photos"
    for row in range(12):
        (folder / str(row % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[row, 0]).save(folder / str(row % 2) / f"{row}.png")
    command = ("check", folder, "--fix", tmp_path / "clean.csv", "--out", tmp_path / "out")
    assert run_cli(*command).code == 0
    assert run_cli(*command).code == 0
    text = (tmp_path / "clean.csv").read_text()
    changed = text.replace("photos/0/4.png,0,", "photos/0/4.png,1,")
    assert changed != text
    (tmp_path / "clean.csv").write_text(changed)
    ran = run_cli(*command)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "clean.csv: calls photos/0/4.png '1', as these data do not" in ran.err
    assert (tmp_path / "clean.csv").read_text() == changed
