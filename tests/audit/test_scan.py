"""Test that ``check`` finds the faults planted into a folder of real images, and changes no file."""

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

from fewlabels.audit import file_facts
from fewlabels.audit import scan as scan_module
from fewlabels.audit.scan import KINDS, Finding, Scan, clean_rows, findings, scan
from fewlabels.data.dataset import open_dataset
from fewlabels.data.listing import list_images
from tests.data.make_mess import RARE, Planted, make_channels, make_leaky_table, make_mess


def scan_with_cache(data: Path, cache: Path) -> Scan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewlabels.data.dataset.user_cache_path", lambda name: cache)
        return scan(str(data))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def planted(fmnist, tmp_path_factory) -> Planted:
    return make_leaky_table(make_mess(tmp_path_factory.mktemp("mess") / "photos", fmnist.train))


@pytest.fixture(scope="module")
def scanned(planted, tmp_path_factory) -> Scan:
    return scan_with_cache(planted.folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def found(scanned) -> list[Finding]:
    return findings(scanned)


@pytest.fixture(scope="module")
def checked(planted, tmp_path_factory) -> Path:
    """Results folder of ``fewlabels check`` on the table; the clean table is in the parent folder of the images."""
    before = contents(planted.folder)
    out = tmp_path_factory.mktemp("out")
    clean = planted.folder.parent / "clean.csv"
    env = {**os.environ, "COLUMNS": "60", "XDG_CACHE_HOME": str(out / "cache")}
    command = [sys.executable, "-m", "fewlabels.cli.app", "check", str(planted.table), "--out", str(out)]
    ran = subprocess.run([*command, "--fix", str(clean)], env=env, capture_output=True, text=True)
    (out / "stdout.txt").write_text(ran.stdout)
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


def test_scan_lists_all_images_and_no_ignored_file(planted, scanned):
    assert sorted(scanned.listing.names) == sorted(planted.labels)
    assert 1200 <= len(planted.labels) <= 1500
    for name in planted.ignored:
        assert (planted.folder / name).is_file()
        assert name not in scanned.listing.names


def test_findings_has_every_unreadable_file(planted, found):
    assert len(planted.corrupt) == 20
    assert sorted(images(found, "corrupt")) == sorted(planted.corrupt)


def test_findings_has_every_constant_image(planted, found):
    assert sorted(images(found, "constant")) == sorted(planted.constant)


def test_findings_has_every_duplicate_and_no_other_pair(planted, found):
    assert len(planted.duplicates) == 50
    assert pairs(found, "duplicate", "conflict") == planted_pairs(planted.duplicates)


def test_findings_has_duplicates_with_different_labels_as_conflicts(planted, found):
    assert len(planted.conflicting) == 15
    assert pairs(found, "conflict") == planted_pairs({copy: planted.duplicates[copy] for copy in planted.conflicting})


def test_findings_has_near_duplicates_with_few_false_alarms(planted, found):
    expected, actual = planted_pairs(planted.near), pairs(found, "near-duplicate")
    assert len(expected) == 30
    assert len(expected & actual) >= 27
    assert len(actual - expected) <= 3  # the real images contain a few near-duplicates


def test_findings_has_flipped_labels_among_the_first_label_issues(planted, found):
    first = images(found, "label issue")[: len(planted.flipped)]
    assert len(planted.flipped) == 45
    assert len(set(first) & set(planted.flipped)) >= 0.6 * 45


def test_findings_has_every_outlier_and_few_other_images(planted, found, scanned):
    outliers = images(found, "outlier")
    assert set(planted.outliers) <= set(outliers)
    assert len(outliers) <= 0.02 * len(scanned.listing.names)


def test_findings_has_the_class_with_few_labels(found):
    by_kind = {finding.kind: finding for finding in found if not finding.image}
    assert by_kind["few labels"].label == RARE
    assert by_kind["imbalance"].label == RARE


def test_findings_has_leaked_copies_and_divided_groups(planted, table_found):
    leaks = [finding for finding in table_found if finding.kind == "leak"]
    assert len(planted.leaks) == 20
    copies = {(finding.image, finding.other) for finding in leaks}
    assert len(copies & set(planted.leaks.items())) >= 19
    in_divided_groups = {finding.image for finding in leaks if not finding.other}
    assert in_divided_groups == {name for members in planted.divided.values() for name in members}


def test_findings_has_no_leaks_without_a_split(found):
    assert images(found, "leak") == []


def test_findings_has_no_faults_of_files_in_untouched_images(fmnist, tmp_path):
    for row in range(100):
        file = tmp_path / "photos" / f"class {row % 2}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[np.flatnonzero(fmnist.train.labels == row % 2 * 8)[row], 0]).save(file)
    found = findings(scan_with_cache(tmp_path / "photos", tmp_path / "cache"))
    assert {finding.kind for finding in found} <= {"label issue", "outlier"}


# The clean table


@pytest.fixture(scope="module")
def clean(planted, checked) -> Path:
    return planted.folder.parent / "clean.csv"


def rows_by_path(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row["path"].removeprefix("./").removeprefix("photos/"): row for row in csv.DictReader(file)}


def test_clean_table_leaves_out_unusable_images_duplicates_and_leaks(planted, clean):
    rows = rows_by_path(clean)
    assert not rows.keys() & set(planted.corrupt + planted.constant)
    for copy, original in planted.duplicates.items():
        assert len(rows.keys() & {copy, original}) == 1
    for copy in planted.conflicting:
        (kept,) = rows.keys() & {copy, planted.duplicates[copy]}
        assert rows[kept]["label"] == ""
    for members in planted.divided.values():
        assert not rows.keys() & set(members)
    assert set(planted.outliers) <= rows.keys()
    assert sum("label issue" in rows[name]["note"] for name in planted.flipped if name in rows) >= 27
    untouched = rows.keys() - planted.duplicates.keys() - set(planted.duplicates.values())
    assert all(rows[name]["label"] == planted.labels[name] for name in untouched)


def test_clean_table_has_near_duplicates_except_across_the_split(planted, scanned, found, clean):
    names = {name for name, *_ in clean_rows(scanned, found)}
    assert {*planted.near, *planted.near.values()} <= names
    rows = rows_by_path(clean)
    across = set(planted.near) & set(planted.leaks)
    assert len(across) == 10
    assert len(across & rows.keys()) <= 1
    assert {planted.leaks[name] for name in across} <= rows.keys()


def test_clean_table_can_be_opened_and_fitted(planted, clean, run_cli, tmp_path):
    names = list_images(clean).names
    assert all((clean.parent / name).is_file() for name in names)
    assert any(Path(name).name.startswith((" ", "=", "-", "<b>")) for name in names)
    data = open_dataset(str(clean))
    assert data.failed == {}
    assert data.test is not None
    fit = ("fit", clean, "--strategy", "supervised", "--budget", "2s", "--logger", "none", "--out", tmp_path / "fit")
    fitted = run_cli(*fit)
    assert fitted.code == 0, fitted.err
    assert "Macro-F1" in fitted.out


def test_check_of_a_clean_table_leaves_nothing_out(clean, tmp_path, monkeypatch):
    monkeypatch.setattr("fewlabels.audit.scan.find_label_issues", lambda *_, **__: [])
    scanned = scan_with_cache(clean, tmp_path / "cache")
    found = findings(scanned)
    assert len(list(clean_rows(scanned, found))) == len(scanned.listing.names)


def test_check_writes_json_and_prints_a_table_within_the_columns(checked, planted):
    result = json.loads((checked / "check.json").read_text())
    assert result["counts"]["images"] == len(planted.labels)
    assert result["counts"]["readable"] == len(planted.labels) - 20
    assert sum(result["sizes"].values()) == result["counts"]["readable"]
    assert {"PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"} == set(result["formats"])
    assert set(result["bits"]) == {"8", "16"}
    assert set(result["channels"]) == {"1", "3"}
    assert {finding["kind"] for finding in result["findings"]} == set(result["found"]) <= set(KINDS)
    assert result["classes"][RARE] == 3
    printed = (checked / "stdout.txt").read_text()
    assert "20" in next(line for line in printed.splitlines() if "corrupt" in line)
    table = [line for line in printed.splitlines() if line[:1] in "┃│┏┡└├"]
    assert table
    assert max(map(len, table)) <= 60
    assert (checked / "check.html").is_file()


# Other data


def test_check_takes_five_channels_and_reports_other_images(fmnist, tmp_path):
    folder = make_channels(tmp_path / "photos", fmnist.train)
    Image.fromarray(fmnist.train.images[0, 0]).save(folder / "gray.png")
    found = findings(scan_with_cache(folder, tmp_path / "cache"))
    assert len(pairs(found, "duplicate")) == 1
    assert [(each.image, each.why) for each in found if each.kind == "channels"] == [
        ("gray.png", "1 channels, the others have 5")
    ]


def test_check_of_arrays_names_rows(fmnist, tmp_path):
    source = fmnist.train.first_k(80)
    pixels, labels = source.images.copy(), source.labels.copy()
    pixels[7], pixels[9] = pixels[3], 0
    labels[7] = (labels[3] + 1) % 10
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)
    found = findings(scan(str(tmp_path / "images.npz")))
    assert pairs(found, "conflict") == {frozenset(("row 3", "row 7"))}
    assert images(found, "constant") == ["row 9"]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_findings_works_with_very_few_images(fmnist, tmp_path, number):
    for row in range(number):
        file = tmp_path / "photos" / str(row % 2) / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fmnist.train.images[row, 0]).save(file)
    found = findings(scan_with_cache(tmp_path / "photos", tmp_path / "cache"))
    assert {finding.kind for finding in found} <= {"few labels"}


def test_check_works_if_all_images_are_constant(tmp_path, run_cli):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for row in range(3):
        Image.new("L", (28, 28), 9).save(tmp_path / "photos" / "a" / f"{row}.png")
    ran = run_cli("check", tmp_path / "photos", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "constant" in ran.out


def test_check_takes_fashion_mnist_by_name(run_cli, fmnist, tmp_path, monkeypatch):
    from fewlabels.data.fashion_mnist import Splits

    splits = Splits(fmnist.train.first_k(300), fmnist.test.first_k(60), fmnist.folder)
    splits.test.images = splits.test.images.copy()
    splits.test.images[5] = splits.train.images[17]
    monkeypatch.setattr("fewlabels.data.dataset.fashion_mnist", lambda folder, say: splits)
    ran = run_cli("check", "fashion-mnist", "--out", tmp_path)
    assert ran.code == 0, ran.err
    result = json.loads((tmp_path / "check.json").read_text())
    leaks = {(each["image"], each["other"]) for each in result["findings"] if each["kind"] == "leak"}
    assert ("train row 17", "test row 5") in leaks


def test_check_escapes_file_names_that_are_not_text(fmnist, tmp_path, run_cli):
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
    assert "cannot be written to a table" in refused.err


@pytest.mark.parametrize(
    ("fix", "message"),
    [
        ("{folder}/below/clean.csv", "must be in the folder of the images"),
        ("{folder}/../elsewhere/clean.csv", "must be in the folder of the images"),
        ("{folder}/clean.txt", "Give it the suffix .csv"),
        ("{folder}/mine.csv", "exists and is not a clean table"),
    ],
)
def test_check_refuses_a_clean_table_in_the_wrong_place(fmnist, tmp_path, run_cli, fix, message):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "mine.csv").write_text("path,label\na.png,cat\n")
    Image.fromarray(fmnist.train.images[0, 0]).save(folder / "a.png")
    before = contents(tmp_path)
    ran = run_cli("check", folder, "--fix", fix.format(folder=folder), "--out", tmp_path / "out")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert message in ran.err
    assert contents(tmp_path) == before


def test_check_refuses_a_clean_table_of_arrays(fmnist, tmp_path, run_cli):
    np.savez(tmp_path / "images.npz", images=fmnist.train.images[:9])
    for data in (tmp_path / "images.npz", "fashion-mnist"):
        ran = run_cli("check", data, "--fix", tmp_path / "clean.csv", "--out", tmp_path / "out")
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "has no image files to list in a table" in ran.err


def test_findings_has_a_cached_file_that_became_unreadable(fmnist, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for row in range(4):
        Image.fromarray(fmnist.train.images[row, 0]).save(folder / f"{row}.png")
    scan_with_cache(folder, tmp_path / "cache")
    original = file_facts._item_facts

    def unreadable_2(item):
        return "no" if str(item).endswith("2.png") else original(item)

    monkeypatch.setattr(file_facts, "_item_facts", unreadable_2)
    again = findings(scan_with_cache(folder, tmp_path / "cache"))
    assert [(finding.image, finding.why) for finding in again if finding.kind == "corrupt"] == [("2.png", "no")]


def test_scan_continues_after_a_worker_is_killed(monkeypatch):
    monkeypatch.setattr(scan_module, "WORKERS_FROM", 2)
    monkeypatch.setattr(scan_module, "available_cores", lambda: 2)
    monkeypatch.setattr(scan_module, "CHUNK", 1)

    class Pool:
        def map(self, function, chunks):
            yield function(chunks[0])
            raise BrokenProcessPool

    monkeypatch.setattr(scan_module, "workers", lambda: nullcontext(Pool()))
    found = scan_module._read_facts([b"", b"no", b""], lambda done, total: None)
    assert found == ["an empty file", "not an image", "an empty file"]


def test_check_refuses_to_replace_a_clean_table_with_edited_labels(fmnist, tmp_path, run_cli):
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
    assert "clean.csv: has the label '1' for photos/0/4.png, unlike these data" in ran.err
    assert (tmp_path / "clean.csv").read_text() == changed
