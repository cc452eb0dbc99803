"""Write a messy folder of real images, with a record of every fault: ``python -m tests.data.make_mess FOLDER``."""

import csv
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from fewlabels.data.source import ArraySource

LABELLED, UNLABELLED, LOOSE = 105, 120, 20
"""Number of images without faults: of each class, in ``_unlabelled``, and outside of all subfolders."""
RARE, FEW = "Bag", 3
"""A class with too few labels, and their number."""
FLIPPED, COPIED, SAVED_ANEW, NEAR = 45, 30, 20, 30
"""Number of wrong labels, copied files, copies in another lossless format, and near-duplicates."""
CONFLICTING = 15
"""Number of copies with another label than the original."""
NAMES = (
    "{n:04}", "{n:04}", "{n:04}", "{n:04}", "{n:04}", "IMG {n:04} (1)", "été_{n:04}", "写真 {n:04}", "a,'b\" {n:04}",
    "<b>{n:04}&amp;", "[red]{n:04}", "=1+{n:04}", "-{n:04}", " {n:04}",
)  # fmt: skip
"""Patterns of file names, some of them difficult for shells, spreadsheets or HTML."""
EXIF_ORIENTATION, ROTATED = 0x0112, 6
"""EXIF tag of the orientation, and its value for an image that must be rotated clockwise."""


@dataclass
class Planted:
    """The faults of a folder; paths are relative to it, with slashes."""

    folder: Path
    labels: dict[str, str] = field(default_factory=dict)
    """Label by file, from its subfolder; empty: unlabelled."""
    corrupt: list[str] = field(default_factory=list)
    duplicates: dict[str, str] = field(default_factory=dict)
    """Original by copy."""
    conflicting: list[str] = field(default_factory=list)
    """Copies with another label than the original."""
    near: dict[str, str] = field(default_factory=dict)
    """Original by altered copy."""
    constant: list[str] = field(default_factory=list)
    flipped: dict[str, str] = field(default_factory=dict)
    """Correct label by image with a wrong label."""
    outliers: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    table: Path | None = None
    leaks: dict[str, str] = field(default_factory=dict)
    """Test image by training image that is a copy of it."""
    divided: dict[str, list[str]] = field(default_factory=dict)
    """Training images by group that is in training and in test."""


def make_mess(folder: Path, fmnist_train: ArraySource, seed: int = 0) -> Planted:
    """Write about 1,400 files, with and without faults."""
    return _Mess(folder, fmnist_train, np.random.default_rng(seed)).made()


def make_leaky_table(planted: Planted, seed: int = 0) -> Planted:
    """Write ``table.csv`` with all files of the folder, and with copies and groups in both training and test."""
    rng = np.random.default_rng([seed, 1])
    copies = planted.duplicates | planted.near
    in_pairs = set(copies) | set(copies.values())
    split = {name: "test" if rng.random() < 0.2 else "train" for name in planted.labels}
    for copy, original in copies.items():
        split[copy] = split[original]
    leaking = [*list(planted.duplicates)[:5], *list(planted.duplicates)[-5:], *list(planted.near)[::3]]
    for copy in leaking:
        split[copy], split[copies[copy]] = "train", "test"
    planted.leaks = {copy: copies[copy] for copy in leaking}
    group = dict.fromkeys(planted.labels, "")
    plain = [name for name in planted.labels if planted.labels[name] and name not in in_pairs | set(planted.corrupt)]
    rng.shuffle(plain)
    for number in range(12):
        members = plain[8 * number : 8 * number + 8]
        for index, name in enumerate(members):
            group[name], split[name] = f"patient {number}", "train" if number % 2 else "test"
            if number < 2:  # these two are in training and test
                split[name] = "train" if index < 5 else "test"
        if number < 2:
            planted.divided[f"patient {number}"] = members[:5]
    planted.table = planted.folder / "table.csv"
    with planted.table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for name, label in planted.labels.items():
            writer.writerow([f"./{name}", label, split[name], group[name]])
    return planted


def make_channels(folder: Path, fmnist_train: ArraySource, number: int = 60) -> Path:
    """Write 16-bit TIFF files with five channels, of two classes, and a copy of one file."""
    for row in np.flatnonzero(fmnist_train.labels < 2)[:number]:
        file = folder / str(fmnist_train.labels[row]) / f"{row}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = fmnist_train.images[row, 0].astype(np.uint16)
        tifffile.imwrite(file, np.stack([image * (40 * channel + 50) for channel in range(5)]))
    shutil.copyfile(file, folder / "again.tif")
    return folder


class _Mess:
    def __init__(self, folder: Path, train: ArraySource, rng: np.random.Generator) -> None:
        self.train, self.rng = train, rng
        self.planted = Planted(folder)
        self.class_names = [name.replace("/", "_") for name in train.class_names]
        self.numbers = iter(range(10_000))
        self.unused = {cls: self._rows(cls) for cls in range(len(self.class_names))}
        self.lossless: list[tuple[str, np.ndarray, str]] = []
        """Name, pixels and label of images that are saved without loss and with the right label."""

    def _rows(self, cls: int) -> Iterator[int]:
        """Yield rows of a class in random order, without images of equal pixels."""
        seen: set[bytes] = set()
        for row in self.rng.permutation(np.flatnonzero(self.train.labels == cls)).tolist():
            content = self.train.images[row].tobytes()
            if content not in seen:
                seen.add(content)
                yield row

    def made(self) -> Planted:
        for cls, name in enumerate(self.class_names):
            for _ in range(FEW if name == RARE else LABELLED):
                self._image(cls, name)
        common = [cls for cls, name in enumerate(self.class_names) if name != RARE]
        for _ in range(UNLABELLED):
            self._image(int(self.rng.choice(common)), "_unlabelled")
        for _ in range(LOOSE):
            self._image(int(self.rng.choice(common)), "")
        for _ in range(FLIPPED):
            cls, other = self.rng.choice(common, 2, replace=False)
            name = self._image(int(cls), self.class_names[other])
            self.planted.flipped[name] = self.class_names[cls]
        originals = iter([self.lossless[index] for index in self.rng.permutation(len(self.lossless))])
        for number in range(COPIED + SAVED_ANEW):
            self._duplicate(number, *next(originals))
        for number in range(NEAR):
            self._near_duplicate(number, *next(originals))
        self._constants()
        self._outliers()
        self._corrupt()
        self._ignored()
        return self.planted

    def _image(self, cls: int, subfolder: str) -> str:
        """Write an unused image of a class; return its path."""
        pixels = self.train.images[next(self.unused[cls]), 0]
        number = next(self.numbers)
        suffix, save, lossless = SAVERS[number % len(SAVERS)]
        name = self._path(subfolder, NAMES[number % len(NAMES)].format(n=number) + suffix)
        save(pixels, self.planted.folder / name)
        if lossless and subfolder == self.class_names[cls] and subfolder != RARE:
            self.lossless.append((name, pixels, subfolder))
        return name

    def _path(self, subfolder: str, file: str) -> str:
        """Return a path relative to the folder, and record its label."""
        name = f"{subfolder}/{file}" if subfolder else file
        (self.planted.folder / name).parent.mkdir(parents=True, exist_ok=True)
        self.planted.labels[name] = "" if subfolder in ("", "_unlabelled") else subfolder
        return name

    def _duplicate(self, number: int, original: str, pixels: np.ndarray, label: str) -> None:
        """Write a copy of the file, or its pixels in another lossless format; some with another class."""
        subfolder = label if number % 2 else "_unlabelled"
        if number % 3 == 0 and len(self.planted.conflicting) < CONFLICTING:
            subfolder = self.class_names[(self.class_names.index(label) + 1) % self.class_names.index(RARE)]
        if number < COPIED:
            name = self._path(subfolder, f"copy {number}{Path(original).suffix}")
            shutil.copyfile(self.planted.folder / original, self.planted.folder / name)
        else:
            suffix, options = LOSSLESS[number % len(LOSSLESS)]
            name = self._path(subfolder, f"anew {number}{suffix}")
            _as_image(pixels).save(self.planted.folder / name, **options)
        self.planted.duplicates[name] = original
        if self.planted.labels[name] not in ("", label):
            self.planted.conflicting.append(name)

    def _near_duplicate(self, number: int, original: str, pixels: np.ndarray, label: str) -> None:
        alter = (_recompressed, _changed_brightness, _resized, _shifted)[number % 4]
        name = self._path(label if number % 3 else "_unlabelled", f"near {number}.png")
        _as_image(alter(pixels, self.rng)).save(self.planted.folder / name)
        self.planted.near[name] = original

    def _constants(self) -> None:
        for number, gray in enumerate((0, 255, 0, 127, 64)):
            name = self._path(self.class_names[number], f"plain {number}.png")
            Image.new("L", (28, 28), gray).save(self.planted.folder / name)
            self.planted.constant.append(name)

    def _outliers(self) -> None:
        for number, pixels in enumerate(_outlier_images(self.rng)):
            name = self._path("_unlabelled" if number % 2 else self.class_names[number], f"screenshot {number}.png")
            _as_image(pixels).save(self.planted.folder / name)
            self.planted.outliers.append(name)

    def _corrupt(self) -> None:
        for number, (suffix, content) in enumerate(_corrupt_files(self.train.images[:20, 0])):
            name = self._path(self.class_names[number % 4] if number % 2 else "", f"torn {number}{suffix}")
            (self.planted.folder / name).write_bytes(content)
            self.planted.corrupt.append(name)

    def _ignored(self) -> None:
        folder = self.planted.folder
        image = _as_image(self.train.images[0, 0])
        (folder / ".thumbnails").mkdir()
        for name in (".hidden.png", ".thumbnails/0.png"):
            image.save(folder / name)
        for name in ("notes.txt", "Thumbs.db"):
            (folder / name).write_text("not an image")
        self.planted.ignored += [".hidden.png", ".thumbnails/0.png", "notes.txt", "Thumbs.db"]


def _as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


# Functions that save uint8 [H, W]. ``SAVERS`` has suffix, function, and whether it is lossless.


def _plainly(**options: Any) -> Callable[[np.ndarray, Path], None]:
    return lambda pixels, file: _as_image(pixels).save(file, **options)


def _sixteen_bits(pixels: np.ndarray, file: Path) -> None:
    tifffile.imwrite(file, pixels.astype(np.uint16) * 257)


def _transparent(pixels: np.ndarray, file: Path) -> None:
    """Save the image with a transparent corner."""
    image = _as_image(pixels).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 4, 4))
    image.save(file)


def _palette(pixels: np.ndarray, file: Path) -> None:
    _as_image(pixels).convert("RGB").quantize(64).save(file)


def _cmyk(pixels: np.ndarray, file: Path) -> None:
    _as_image(pixels).convert("RGB").convert("CMYK").save(file, quality=95)


def _rotated(pixels: np.ndarray, file: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATED
    _as_image(pixels).transpose(Image.Transpose.ROTATE_90).save(file, exif=exif, quality=95)


def _tinted(pixels: np.ndarray, file: Path) -> None:
    tint = np.array([1.0, 0.85, 0.7])
    Image.fromarray((pixels[..., None] * tint).astype(np.uint8)).save(file)


def _of_size(width: int, height: int) -> Callable[[np.ndarray, Path], None]:
    """Return a saver that resizes the image, with black borders if the sides differ."""

    def save(pixels: np.ndarray, file: Path) -> None:
        side = min(width, height)
        padded = Image.new("L", (width, height))
        padded.paste(_as_image(pixels).resize((side, side)), ((width - side) // 2, (height - side) // 2))
        padded.save(file)

    return save


_AS_PNG = (".png", _plainly(), True)
SAVERS = (
    *[_AS_PNG] * 12,
    (".jpg", _plainly(quality=95), False), _AS_PNG, (".bmp", _plainly(), True), _AS_PNG, (".gif", _plainly(), True),
    (".PNG", _plainly(), True), (".webp", _plainly(lossless=True), True), _AS_PNG, (".tif", _plainly(), True),
    (".tiff", _sixteen_bits, False), _AS_PNG, (".png", _transparent, False), (".png", _palette, False),
    (".JPG", _cmyk, False), (".jpeg", _rotated, False), _AS_PNG, (".png", _tinted, False),
    (".png", _of_size(56, 56), False), (".jpg", _of_size(40, 28), False),
)  # fmt: skip
LOSSLESS: tuple[tuple[str, dict[str, Any]], ...] = (
    (".bmp", {}), (".tif", {"compression": "tiff_lzw"}), (".webp", {"lossless": True}), (".gif", {}),
    (".png", {"compress_level": 0}),
)  # fmt: skip


# Functions that return a near-duplicate of uint8 [H, W].


def _recompressed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    _as_image(pixels).save(buffer, "JPEG", quality=int(rng.integers(50, 81)))
    return np.asarray(Image.open(buffer))


def _changed_brightness(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness and contrast a little."""
    changed = pixels * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12)
    return np.clip(changed, 0, 255).astype(np.uint8)


def _resized(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(36, 72))
    return np.asarray(_as_image(pixels).resize((side, side), Image.Resampling.BICUBIC).resize((28, 28)))


def _shifted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift by one pixel, and repeat the border."""
    down, right = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1))[rng.integers(6)]
    return np.pad(pixels, 1, mode="edge")[1 + down : 29 + down, 1 + right : 29 + right]


def _outlier_images(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield images that belong to no class."""
    yield rng.integers(0, 256, (28, 28), dtype=np.uint8)
    yield (255 * (np.indices((28, 28)) // 4).sum(axis=0) % 510).astype(np.uint8)
    page = Image.new("L", (112, 112), 255)
    for line in range(9):
        ImageDraw.Draw(page).text((6, 4 + 12 * line), "Invoice no. 2024-118", fill=0)
    yield np.asarray(page.resize((28, 28)))
    yield (127 + 127 * np.sin(np.arange(28) * 1.4))[:, None].repeat(28, axis=1).astype(np.uint8)
    yield np.kron(rng.integers(0, 2, (7, 7), dtype=np.uint8) * np.uint8(255), np.ones((4, 4), np.uint8))
    yield np.asarray(_as_image(rng.integers(0, 256, (5, 5), dtype=np.uint8)).resize((28, 28), Image.Resampling.BICUBIC))


def _corrupt_files(images: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yield suffix and content of 20 files that cannot be read."""

    def intact(number: int, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        _as_image(images[number]).resize((56, 56)).save(buffer, kind, **options)
        return buffer.getvalue()

    kinds = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
    for number, kind in enumerate(kinds):
        content = intact(number, kind)
        yield "." + kind.lower(), content[: len(content) // 2]
    yield ".jpg", intact(6, "JPEG", quality=90)[:-200]
    yield ".png", intact(7, "PNG")[:-60]
    yield ".png", b""
    yield ".jpg", b""
    yield ".png", b"This is a text about an image.\n" * 20
    yield ".jpg", b"<!doctype html><title>404</title><h1>Not found</h1>"
    yield ".png", intact(8, "PNG")[4:]
    yield ".jpg", intact(9, "JPEG")[20:]
    yield ".gif", b"GIF89a"
    yield ".bmp", bytes(2000)
    yield ".webp", intact(10, "WEBP")[:20] + bytes(400)
    yield ".png", intact(11, "PNG").replace(b"IHDR", b"IXDR")
    yield ".tif", b"II*\x00" + bytes(range(200))
    yield ".jpeg", b'{"error": "rate limit exceeded"}'


if __name__ == "__main__":
    from fewlabels.data.fashion_mnist import fashion_mnist

    made = make_leaky_table(make_mess(Path(sys.argv[1]), fashion_mnist().train))
    print(f"{len(made.labels):,} images in {made.folder}; {made.table} leaks.")
