"""Where the data is looked for, and that only whole, right files are kept."""

import gzip
import hashlib
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST

from fewlabels._internal.errors import InputError
from fewlabels.data import fashion_mnist as module
from fewlabels.data.fashion_mnist import CLASS_NAMES, FILES, fashion_mnist, fetch, locate


def test_classes_are_named_as_elsewhere():
    assert list(CLASS_NAMES) == FashionMNIST.classes


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no system folder, no Debian."""
    monkeypatch.delenv("FEWLABELS_DATA", raising=False)
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(module, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return tmp_path


def put_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).touch()
    return folder


def test_looks_in_the_order_that_is_documented(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    assert locate() is None
    system = put_files(elsewhere / "system")
    assert locate() == system
    cache = put_files(elsewhere / "cache")
    assert locate() == cache
    monkeypatch.setenv("FEWLABELS_DATA", "named")
    assert locate() == Path("named")
    assert locate(Path("given")) == Path("given")


def test_the_real_data_is_what_torchvision_describes(fmnist):
    assert len(fmnist.train) == 60_000
    assert len(fmnist.test) == 10_000
    assert fmnist.train.shape == (1, 28, 28)
    assert fmnist.train.class_names == tuple(FashionMNIST.classes)
    # Balanced classes and the pixel mean are published with the data set.
    assert (fmnist.train.read(slice(None)).float().mean() / 255).item() == pytest.approx(0.2860, abs=1e-4)


class _Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A download address on this machine, serving ``tmp_path/served``."""
    served = tmp_path / "served"
    served.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Mirror(*args, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    yield served
    server.shutdown()
    server.server_close()


def serve_small_files(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {}
    for name in FILES:
        (served / name).write_bytes(gzip.compress(name.encode()))
        sums[name] = hashlib.md5(name.encode()).hexdigest()
    monkeypatch.setattr(module, "FILES", sums)


def test_downloads_and_keeps_right_files(elsewhere: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch):
    serve_small_files(mirror, monkeypatch)
    into = fetch(elsewhere / "cache", say=lambda line: None)
    assert sorted(os.listdir(into)) == sorted(FILES)


def test_a_wrong_file_is_deleted_with_a_line(elsewhere: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch):
    serve_small_files(mirror, monkeypatch)
    (mirror / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte.gz was wrong \(MD5 .* has been deleted"):
        fetch(elsewhere / "cache", say=lambda line: None)
    assert os.listdir(elsewhere / "cache") == ["train-images-idx3-ubyte.gz"]


def test_an_interrupted_download_leaves_nothing_behind(elsewhere: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch):
    serve_small_files(mirror, monkeypatch)

    def interrupted(source, target):
        target.write(source.read(3))
        if threading.current_thread() is threading.main_thread():  # the server copies with it, too
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(elsewhere / "cache", say=lambda line: None)
    assert os.listdir(elsewhere / "cache") == []


def test_nowhere_to_be_had_says_what_to_do(elsewhere: Path, mirror: Path):
    with pytest.raises(InputError, match="FEWLABELS_DATA") as error:
        fashion_mnist(say=lambda line: None)
    assert "File not found" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb here: Debian's way is tested on Debian")
@pytest.mark.parametrize("lists", ["the system's", "our own"])
def test_debians_package_serves_as_the_last_resort(fmnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: str):
    """A package is built here from the real files; apt-get alone is stood in for, since it needs the network."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: t\n"
    )
    data = root / "usr/share/datasets/fashion-mnist"
    data.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(fmnist.folder / name, data / name)
    os.system(f"dpkg-deb --build -Znone '{root}' '{tmp_path}/fashion.deb' > /dev/null")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    # Without package lists, apt knows the package only after an update into a folder of ours.
    known = "" if lists == "the system's" else f'[ -e "{tmp_path}/updated" ] || exit 100\n'
    update = f'case "$*" in *Lists=*update) touch "{tmp_path}/updated"; exit 0;; esac\n'
    (bin_folder / "apt-get").write_text(f"#!/bin/sh\n{update}{known}cp '{tmp_path}/fashion.deb' .\n")
    (bin_folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    into = fetch(tmp_path / "cache", say=lambda line: None)
    assert sorted(os.listdir(into)) == sorted(FILES)
    assert len(fashion_mnist(into).train) == 60_000
