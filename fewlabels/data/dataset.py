"""DATA, opened: Fashion-MNIST, a folder of images, a table of them, or a file of arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from fewlabels._internal.errors import InputError, did_you_mean, printable
from fewlabels.data.arrays import ARRAYS, arrays_listed
from fewlabels.data.decoded import Told, decoded_images
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.form import Form, Preparation
from fewlabels.data.listing import Listing, divided, listed
from fewlabels.data.source import UNLABELLED, ArraySource

FASHION_MNIST = "fashion-mnist"
LEAST_TESTED = 10
"""Images of a test that is drawn; of fewer a figure tells nothing."""


@dataclass(frozen=True)
class Dataset:
    """Images to learn from, images to test on, and where they come from."""

    train: ArraySource
    test: ArraySource | None
    """All of them labelled; None: no image is set aside."""
    preparation: Preparation
    """What was done with their pixels."""
    names: tuple[list[str], list[str]]
    """Of the images of train and of test: paths below the folder, or rows."""
    failed: dict[str, str]
    """What is wrong with the files that could not be decoded, by name."""


def opened(
    data: str,
    folder: Path | None = None,
    share: float = 0.0,
    size: int | None = None,
    say: Callable[[str], None] = print,
    told: Told | None = None,
) -> Dataset:
    """Open what the user names.

    Args:
        data: ``fashion-mnist``; a folder, a .csv, .tsv or .parquet table; a .npz, .h5 or .hdf5 file.
        folder: where Fashion-MNIST is; None: wherever it is found.
        share: of the labelled images that is set aside for the test where the data name none, in 0..1.
        size: pixels of the longer side that image files are brought to; None: by the images.
        say: receives a line for whatever takes a while or is left out.
        told: progress of decoding.

    Raises:
        InputError: naming the file or row that cannot be used.
    """
    if data == FASHION_MNIST:
        splits = fashion_mnist(folder, say=say)
        names = tuple([f"row {row}" for row in range(len(part))] for part in (splits.train, splits.test))
        return Dataset(splits.train, splits.test, _as_they_are(splits.train), (names[0], names[1]), {})
    path = existing(data)
    if path.suffix.lower() in ARRAYS and not path.is_dir():
        images, listing, preparation = arrays_listed(path, size)
        return _parted(listing, images, np.arange(len(images)), share, preparation, {}, say)
    listing = listed(path)
    found = decoded_images(listing, decoded_folder(), size, told)
    failed = {listing.names[row]: line for row, line in found.failed.items()}
    if failed:
        name, line = next(iter(failed.items()))
        more = f"; so are {len(failed) - 1:,} more" if len(failed) > 1 else ""
        say(f"Left out: {printable(name)} ({line}){more}. To see all: fewlabels check {data}")
    square = f"{found.source.shape[1]}x{found.source.shape[2]}"
    if size is None and found.longest > max(found.source.shape[1:]):
        say(f"Images of up to {found.longest:,} pixels a side are brought to {square}. --size N keeps finer detail.")
    return _parted(listing, found.source.images, found.rows, share, found.preparation, failed, say)


def existing(data: str) -> Path:
    """The place that the user names.

    Raises:
        InputError: if nothing is there.
    """
    path = Path(data)
    if not path.exists():
        meant = did_you_mean(data, [FASHION_MNIST])
        raise InputError(f"{data}: no such file or folder.{meant} Pass {FASHION_MNIST}, a folder, a table or arrays.")
    return path


def decoded_folder() -> Path:
    """Where decoded images are kept."""
    return user_cache_path("fewlabels") / "decoded"


def _parted(
    listing: Listing,
    images: np.ndarray,
    rows: np.ndarray,
    share: float,
    preparation: Preparation,
    failed: dict[str, str],
    say: Callable[[str], None],
) -> Dataset:
    """Training and test of the images of these rows of the listing."""
    tested = divided(listing, share, seed=0)[rows]
    labels = listing.labels[rows]
    whole = ArraySource(images, labels, listing.class_names, str(listing.root), listing.groups_of(rows))
    train_rows, test_rows = np.flatnonzero(~tested), np.flatnonzero(tested & (labels != UNLABELLED))
    unnamed = int((tested & (labels == UNLABELLED)).sum())
    if unnamed:
        say(f"Left out: {unnamed:,} images of the test that have no label.")
    if not len(train_rows):
        raise InputError(f"{listing.root}: every image is for the test. Leave some for training.")
    if share and not any(listing.splits):
        whole.checked(1)
        _refuse_small(listing.root, len(test_rows), whole.num_labels)
        say(f"Set aside for the test: {len(test_rows):,} of {whole.num_labels:,} labelled images.")
    names = tuple([listing.names[row] for row in rows[part]] for part in (train_rows, test_rows))
    test = whole.subset(test_rows) if len(test_rows) else None
    # All of a file's pixels stay on disk; a selection would be read whole.
    train = whole.subset(train_rows) if len(train_rows) < len(rows) else whole
    return Dataset(train, test, preparation, (names[0], names[1]), failed)


def _refuse_small(root: Path, tested: int, labelled: int) -> None:
    if tested < LEAST_TESTED:
        raise InputError(
            f"{root}: {labelled} labelled images give a test of {tested}, {LEAST_TESTED} are needed. "
            "Label more, or name those of the test in a table's column split."
        )


def _as_they_are(source: ArraySource) -> Preparation:
    return Preparation(Form(*source.shape, "uint8"))
