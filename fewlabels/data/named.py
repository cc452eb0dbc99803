"""Data sets that are known by name: ELPV and scikit-learn's digits. Fashion-MNIST has a module of its own."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels.data.listing import Listing, make_listing
from fewlabels.data.source import ArraySource

FASHION_MNIST, ELPV, DIGITS = "fashion-mnist", "elpv", "digits"
NAMED = (FASHION_MNIST, ELPV, DIGITS)
"""Names that may be given instead of a path."""
ELPV_TEST, DIGITS_TEST = 1000, 797
"""Number of test images, drawn with a fixed seed. Not tuned."""
ELPV_LICENCE = "ELPV is licensed CC BY-NC-SA 4.0 (non-commercial); fewlabels reads your installed copy, and ships none."
"""Printed whenever ELPV is loaded."""


def elpv_listing(say: Callable[[str], None] = print) -> Listing:
    """List ELPV's solar cells, defective or functional (Deitsch et al. 2019), from the package ``elpv-dataset``.

    A cell is defective if the experts' mean probability is 0.5 or more. 1,000 of the 2,624 images are the test set.

    Args:
        say: receives a line about the licence.

    Raises:
        InputError: if the package is not installed, or its table of labels cannot be read.
    """
    found = find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise InputError(
            f"elpv: the package elpv-dataset is not installed. Run: pip install elpv-dataset. {ELPV_LICENCE}"
        )
    root = Path(found.origin).parent / "data"
    try:
        rows = [line.split() for line in (root / "labels.csv").read_text().splitlines() if line.strip()]
        names, probabilities = [row[0] for row in rows], [float(row[1]) for row in rows]
    except (OSError, ValueError, IndexError):
        raise InputError(f"{root}: not a whole ELPV. Run: pip install --force-reinstall elpv-dataset") from None
    say(ELPV_LICENCE)
    classes = ["defective" if probability >= 0.5 else "functional" for probability in probabilities]
    splits = ["train"] * len(names)
    for row in _test_rows(len(names), ELPV_TEST):
        splits[row] = "test"
    return make_listing(root, names, classes, splits, [""] * len(names))


def digits() -> tuple[ArraySource, ArraySource]:
    """Load scikit-learn's 1,797 handwritten digits of 8x8 pixels: 1,000 training images, 797 test images."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.round(loaded.images * (255 / 16)).astype(np.uint8)
    source = ArraySource(images, loaded.target, [str(digit) for digit in range(10)], DIGITS)
    test = np.sort(_test_rows(len(images), DIGITS_TEST))
    return source.subset(np.setdiff1d(np.arange(len(images)), test)), source.subset(test)


def _test_rows(num_images: int, num_test: int) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(0).permutation(num_images)[:num_test]
    return rows
