"""Load Fashion-MNIST (Xiao et al. 2017) from this machine, or download and verify it."""

import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import atomic_write
from fewlabels.data.idx import idx_source
from fewlabels.data.source import ArraySource

CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""Names of classes 0 to 9, as torchvision has them."""

FILES = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""MD5 of the unpacked content by file name; the packed bytes differ between distributors (dev/decisions.md)."""

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Folder in which Debian's package installs the files."""
DEBIAN_PACKAGE = "dataset-fashion-mnist"
"""Name of Debian's package."""
DOWNLOAD_TIMEOUT_SECONDS = 20
"""Seconds without an answer after which a download fails. Not tuned."""


@dataclass(frozen=True)
class Splits:
    """The 60,000 training and 10,000 test images."""

    train: ArraySource
    test: ArraySource
    folder: Path
    """Folder that the files were read from."""


def cache_folder() -> Path:
    """Return the folder of downloaded files."""
    return user_cache_path("fewlabels") / "fashion-mnist"


def fashion_mnist(folder: Path | None = None, say: Callable[[str], None] = print) -> Splits:
    """Load Fashion-MNIST; download it if it is not on this machine.

    If ``folder`` or ``$FEWLABELS_DATA`` is set, only that folder is searched, ``folder`` first. Otherwise the cache and
    the system's package folder are searched. If neither has the files, they are downloaded into the cache: from
    torchvision's mirrors, or else from Debian's package.

    Args:
        folder: holds the four gzipped (or plain) IDX files.
        say: receives a line for each download that starts.

    Raises:
        InputError: if a file is missing or damaged, or cannot be downloaded.
    """
    where = locate(folder)
    if where is None:
        where = fetch(cache_folder(), say)
    train, test = (
        idx_source(_file(where, f"{part}-images-idx3-ubyte"), _file(where, f"{part}-labels-idx1-ubyte"), CLASS_NAMES)
        for part in ("train", "t10k")
    )
    return Splits(train, test, folder=where)


def locate(folder: Path | None = None) -> Path | None:
    """Return the folder that the data would be read from, or None if they must be downloaded."""
    named = folder or os.environ.get("FEWLABELS_DATA")
    if named:
        return Path(named)
    for candidate in (cache_folder(), SYSTEM_FOLDER):
        if all((candidate / name).is_file() for name in FILES):
            return candidate
    return None


def _file(folder: Path, stem: str) -> Path:
    plain = folder / stem
    return plain if plain.is_file() else folder / f"{stem}.gz"


def fetch(into: Path, say: Callable[[str], None]) -> Path:
    """Download the four files into a folder; each is verified before it gets its final name.

    Raises:
        InputError: if no provider has the files; the message has the reason of each.
    """
    reasons = []
    for title, provider in (("download", _from_mirrors), ("Debian's package", _from_debian)):
        try:
            for name in FILES:
                if not (into / name).is_file():
                    provider(into, name, say)
            return into
        except _Unavailable as error:
            reasons.append(f"{title}: {error}")
    raise InputError(
        f"Fashion-MNIST could not be fetched ({'; '.join(reasons)}). "
        "Put its four .gz files in a folder and pass the folder with --data or FEWLABELS_DATA."
    )


class _Unavailable(Exception):
    """A provider does not have the files; another may."""


def verify_md5(path: Path, name: str) -> None:
    """Compare a downloaded file with the known MD5; delete the file if it differs.

    Raises:
        _Unavailable: if it differs.
    """
    try:
        with gzip.open(path) as file:
            found = hashlib.file_digest(file, "md5").hexdigest() if hasattr(hashlib, "file_digest") else _md5(file)
    except (OSError, EOFError, zlib.error):
        found = "a damaged gzip file"
    if found != FILES[name]:
        path.unlink()
        raise _Unavailable(f"{name} was wrong (MD5 {found}, not {FILES[name]}) and has been deleted")


def _md5(file: gzip.GzipFile) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.md5()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _from_mirrors(into: Path, name: str, say: Callable[[str], None]) -> None:
    """Download one file from torchvision's mirrors."""
    from torchvision.datasets import FashionMNIST  # as slow to import as torch, and seldom needed

    problems: list[str] = []
    for mirror in FashionMNIST.mirrors:
        say(f"Fetching {name} from {mirror}")
        try:
            with atomic_write(into / name) as temporary:
                _download(mirror + name, temporary)
                verify_md5(temporary, name)
            return
        except _Unavailable as problem:
            problems.append(str(problem))
    raise _Unavailable(", ".join(problems))


def _download(url: str, to: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response, to.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Unavailable(f"{url}: {getattr(error, 'reason', error)}") from None


def _from_debian(into: Path, name: str, say: Callable[[str], None]) -> None:
    """Download Debian's package and unpack all four files."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise _Unavailable("no apt-get here")
    say(f"Fetching Debian's package {DEBIAN_PACKAGE}")
    with tempfile.TemporaryDirectory() as scratch:
        _apt_download(Path(scratch))
        package = next(Path(scratch).glob("*.deb"))
        if subprocess.run(["dpkg-deb", "--extract", str(package), scratch], capture_output=True).returncode:
            raise _Unavailable(f"{package.name} could not be unpacked")
        for each in FILES:
            with atomic_write(into / each) as temporary:
                shutil.copyfile(Path(scratch) / SYSTEM_FOLDER.relative_to("/") / each, temporary)
                verify_md5(temporary, each)


def _apt_download(scratch: Path) -> None:
    """Download Debian's package to ``scratch``; needs no root, and fetches package lists if the system has none."""
    lists, cache = scratch / "lists", scratch / "cache"
    for folder in (lists, cache):
        (folder / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
    download = ["download", DEBIAN_PACKAGE]
    if _apt(scratch, download).returncode:
        _apt(scratch, [*own, "update"])
        tried = _apt(scratch, [*own, *download])
        if tried.returncode:
            raise _Unavailable(" ".join(tried.stderr.split()) or "apt-get gave no reason")


def _apt(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["apt-get", *arguments], cwd=folder, capture_output=True, text=True)
