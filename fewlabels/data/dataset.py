"""Open a data set for training and test: one known by name, a folder of images, a table, or a file of arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from fewlabels._internal.errors import InputError, did_you_mean, sanitize
from fewlabels.data.arrays import ARRAY_SUFFIXES, load_arrays
from fewlabels.data.decoded import ProgressCallback, decode_images, preview_images
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.listing import Listing, list_images, select_test
from fewlabels.data.named import DIGITS, ELPV, FASHION_MNIST, NAMED, digits, elpv_listing
from fewlabels.data.preprocessing import ImageSpec, Preprocessing
from fewlabels.data.source import UNLABELLED, ArraySource

MIN_TEST_IMAGES = 10
"""Smallest test set that is drawn at random: scores on fewer images are too uncertain. Not tuned."""


@dataclass(frozen=True)
class Dataset:
    """Training images, test images, and where they come from."""

    train: ArraySource
    test: ArraySource | None
    """Test images, all labelled; None: there is no test set."""
    preprocessing: Preprocessing
    """The conversion that was applied to the pixels."""
    names: tuple[list[str], list[str]]
    """Names of the training and of the test images: paths below the folder, or rows."""
    failed: dict[str, str]
    """Error message by file name, for the files that could not be decoded."""


def open_dataset(
    data: str,
    folder: Path | None = None,
    test_fraction: float = 0.0,
    size: int | None = None,
    say: Callable[[str], None] = print,
    on_progress: ProgressCallback | None = None,
    roots: Sequence[Path] = (),
    decode: bool = True,
) -> Dataset:
    """Open a data set.

    Args:
        data: a name of ``NAMED``; a folder, a .csv, .tsv or .parquet table; a .npz, .h5 or .hdf5 file.
        folder: of Fashion-MNIST's files; None: the first of the usual folders that has them.
        test_fraction: fraction in 0..1 of the labelled images that become the test set, if the data define none.
        size: pixels of the longer side to which image files are resized; None: chosen from the images.
        say: receives a line for each step that takes long, and for images that are left out.
        on_progress: called while image files are decoded.
        roots: more folders that may contain a table's images, besides the table's own.
        decode: False: image files are not decoded; their pixels are black.

    Raises:
        InputError: if a file or row cannot be used; the message names it.
    """
    if data in (FASHION_MNIST, DIGITS):
        return _from_arrays(*named_arrays(data, folder, say))
    if data == ELPV:
        return _from_files(elpv_listing(say), data, test_fraction, size, say, on_progress, decode)
    path = existing_path(data)
    if path.suffix.lower() in ARRAY_SUFFIXES and not path.is_dir():
        images, listing, preprocessing = load_arrays(path, size)
        return _split(listing, images, np.arange(len(images)), test_fraction, preprocessing, {}, say)
    return _from_files(list_images(path, roots), data, test_fraction, size, say, on_progress, decode)


def named_arrays(data: str, folder: Path | None, say: Callable[[str], None]) -> tuple[ArraySource, ArraySource]:
    """Load training and test images of Fashion-MNIST or of the digits; arguments as for :func:`open_dataset`."""
    if data == DIGITS:
        return digits()
    splits = fashion_mnist(folder, say=say)
    return splits.train, splits.test


def _from_arrays(train: ArraySource, test: ArraySource) -> Dataset:
    names = tuple([f"row {row}" for row in range(len(part))] for part in (train, test))
    return Dataset(train, test, _uint8_preprocessing(train), (names[0], names[1]), {})


def _from_files(
    listing: Listing,
    data: str,
    test_fraction: float,
    size: int | None,
    say: Callable[[str], None],
    on_progress: ProgressCallback | None,
    decode: bool,
) -> Dataset:
    """Decode image files and divide them into training and test set."""
    found = decode_images(listing, decoded_folder(), size, on_progress) if decode else preview_images(listing, size)
    failed = {listing.names[row]: line for row, line in found.failed.items()}
    if failed:
        name, line = next(iter(failed.items()))
        more = f"; so are {len(failed) - 1:,} more" if len(failed) > 1 else ""
        say(f"Left out: {sanitize(name)} ({line}){more}. To see all: fewlabels check {data}")
    square = f"{found.source.shape[1]}x{found.source.shape[2]}"
    if size is None and found.longest_side > max(found.source.shape[1:]):
        longest = f"{found.longest_side:,}"
        say(f"Images of up to {longest} pixels a side are resized to {square}. --size N keeps more detail.")
    return _split(listing, found.source.images, found.rows, test_fraction, found.preprocessing, failed, say)


def existing_path(data: str) -> Path:
    """Return the path of a file or folder.

    Raises:
        InputError: if it does not exist.
    """
    path = Path(data)
    if not path.exists():
        meant = did_you_mean(data, NAMED)
        names = ", ".join(NAMED)
        raise InputError(f"{data}: no such file or folder.{meant} Pass {names}, a folder, a table or arrays.")
    return path


def decoded_folder() -> Path:
    """Return the folder of the cache of decoded images."""
    return user_cache_path("fewlabels") / "decoded"


def _split(
    listing: Listing,
    images: np.ndarray,
    rows: np.ndarray,
    test_fraction: float,
    preprocessing: Preprocessing,
    failed: dict[str, str],
    say: Callable[[str], None],
) -> Dataset:
    """Divide images, which belong to these rows of the listing, into training and test set."""
    in_test = select_test(listing, test_fraction, seed=0)[rows]
    labels = listing.labels[rows]
    source = ArraySource(images, labels, listing.class_names, str(listing.root), listing.groups_of(rows))
    train_rows, test_rows = np.flatnonzero(~in_test), np.flatnonzero(in_test & (labels != UNLABELLED))
    unlabelled_test = int((in_test & (labels == UNLABELLED)).sum())
    if unlabelled_test:
        say(f"Left out: {unlabelled_test:,} test images without a label.")
    if not len(train_rows):
        raise InputError(f"{listing.root}: every image is for the test. Leave some for training.")
    if test_fraction and not any(listing.splits):
        source.checked(1)
        _refuse_small_test(listing.root, len(test_rows), source.num_labels)
        say(f"Set aside for the test: {len(test_rows):,} of {source.num_labels:,} labelled images.")
    names = tuple([listing.names[row] for row in rows[part]] for part in (train_rows, test_rows))
    test = source.subset(test_rows) if len(test_rows) else None
    # The whole source stays a memory map on disk; a subset would be loaded into memory.
    train = source.subset(train_rows) if len(train_rows) < len(rows) else source
    return Dataset(train, test, preprocessing, (names[0], names[1]), failed)


def _refuse_small_test(root: Path, in_test: int, labelled: int) -> None:
    if in_test < MIN_TEST_IMAGES:
        raise InputError(
            f"{root}: {labelled} labelled images give a test set of {in_test}; {MIN_TEST_IMAGES} are needed. "
            "Label more, or mark the test images in a table's column split."
        )


def _uint8_preprocessing(source: ArraySource) -> Preprocessing:
    return Preprocessing(ImageSpec(*source.shape, "uint8"))
