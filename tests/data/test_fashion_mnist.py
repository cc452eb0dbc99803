"""Which folders are searched for the data, and that only complete, verified files stay in the cache."""

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


def test_class_names_equal_torchvisions():
    assert list(CLASS_NAMES) == FashionMNIST.classes


@pytest.fixture
def without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


def test_locate_searches_folders_in_the_documented_order(without_data: Path, monkeypatch: pytest.MonkeyPatch):
    assert locate() is None
    system = put_files(without_data / "system")
    assert locate() == system
    cache = put_files(without_data / "cache")
    assert locate() == cache
    monkeypatch.setenv("FEWLABELS_DATA", "named")
    assert locate() == Path("named")
    assert locate(Path("given")) == Path("given")


def test_fashion_mnist_has_torchvisions_sizes_classes_and_pixel_mean(fmnist):
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


def test_fetch_downloads_all_files(without_data: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch):
    serve_small_files(mirror, monkeypatch)
    into = fetch(without_data / "cache", say=lambda line: None)
    assert sorted(os.listdir(into)) == sorted(FILES)


def test_fetch_deletes_a_file_with_a_wrong_md5(without_data: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch):
    serve_small_files(mirror, monkeypatch)
    (mirror / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte.gz was wrong \(MD5 .* has been deleted"):
        fetch(without_data / "cache", say=lambda line: None)
    assert os.listdir(without_data / "cache") == ["train-images-idx3-ubyte.gz"]


def test_fetch_leaves_no_file_after_an_interrupt(without_data: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch):
    serve_small_files(mirror, monkeypatch)

    def interrupted(source, target):
        target.write(source.read(3))
        if threading.current_thread() is threading.main_thread():  # the server calls it, too
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(without_data / "cache", say=lambda line: None)
    assert os.listdir(without_data / "cache") == []


def test_fashion_mnist_explains_what_to_do_if_no_mirror_has_the_files(without_data: Path, mirror: Path):
    with pytest.raises(InputError, match="FEWLABELS_DATA") as error:
        fashion_mnist(say=lambda line: None)
    assert "File not found" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
@pytest.mark.parametrize("lists", ["the system's", "our own"])
def test_fetch_falls_back_to_debians_package(fmnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: str):
    """A package is built from the real files; a script replaces apt-get, which needs the network."""
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
    # Without package lists, apt finds the package only after an update into a folder of ours.
    requires_update = "" if lists == "the system's" else f'[ -e "{tmp_path}/updated" ] || exit 100\n'
    update = f'case "$*" in *Lists=*update) touch "{tmp_path}/updated"; exit 0;; esac\n'
    (bin_folder / "apt-get").write_text(f"#!/bin/sh\n{update}{requires_update}cp '{tmp_path}/fashion.deb' .\n")
    (bin_folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    into = fetch(tmp_path / "cache", say=lambda line: None)
    assert sorted(os.listdir(into)) == sorted(FILES)
    assert len(fashion_mnist(into).train) == 60_000
