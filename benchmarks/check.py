"""Faults that ``fewlabels check`` finds in folders of real images with planted faults, and its false alarms.

The data are five folders from :mod:`tests.data.make_mess`, then 5,000 training images and the test images without
planted faults.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ResultFile
from fewlabels.audit.near_duplicates import near_duplicates, near_duplicates_within
from fewlabels.audit.scan import Finding, findings, scan
from fewlabels.data.fashion_mnist import fashion_mnist
from tests.data.make_mess import Planted, make_leaky_table, make_mess

SEEDS = (0, 1, 2, 3, 4)
NUM_UNTOUCHED = 5000
"""Number of training images without planted faults. Not tuned."""


def rows_of(planted: Planted, found: list[Finding]) -> list[dict[str, Any]]:
    """Return a row for each kind of fault: planted, found, and reported without being planted (``besides``)."""

    def reported_images(*kinds: str) -> list[str]:
        return [finding.image for finding in found if finding.kind in kinds]

    def reported_pairs(*kinds: str) -> set[Any]:
        return {frozenset((finding.image, finding.other)) for finding in found if finding.kind in kinds}

    def row(what: str, expected: set[Any], reported: set[Any]) -> dict[str, Any]:
        correct, besides = len(expected & reported), len(reported - expected)
        return {"what": what, "planted": len(expected), "found": correct, "besides": besides}

    issues, flipped = reported_images("label issue"), set(planted.flipped)
    return [
        row("corrupt", set(planted.corrupt), set(reported_images("corrupt"))),
        row("duplicates", set(map(frozenset, planted.duplicates.items())), reported_pairs("duplicate", "conflict")),
        row("near-duplicates", set(map(frozenset, planted.near.items())), reported_pairs("near-duplicate")),
        row("leaked copies", set(map(frozenset, planted.leaks.items())), reported_pairs("leak")),
        row("flipped labels, as many of the first doubts", flipped, set(issues[: len(flipped)])),
        row("flipped labels, all doubts", flipped, set(issues)),
        row("foreign", set(planted.outliers), set(reported_images("outlier"))),
        row("constant", set(planted.constant), set(reported_images("constant"))),
    ]


def main() -> None:
    """Measure the data sets that have no rows yet."""
    file = ResultFile("check", "python -m benchmarks.check", keys=("what", "seed"))
    train = fashion_mnist().train
    for seed in SEEDS:
        if file.has(what="corrupt", seed=seed):
            continue
        with tempfile.TemporaryDirectory() as folder:
            planted = make_leaky_table(make_mess(Path(folder) / "photos", train, seed), seed)
            began = time.perf_counter()
            rows = rows_of(planted, findings(scan(str(planted.table))))
            seconds = round(time.perf_counter() - began, 1)
        file.replace([{**row, "seed": seed, "images": len(planted.labels), "seconds": seconds} for row in rows])
    for what, source, search in (
        ("untouched", train.first_k(NUM_UNTOUCHED), near_duplicates_within),
        ("test", fashion_mnist().test, partial(near_duplicates, others=train)),
    ):
        if file.has(what=what, seed=0):
            continue
        began = time.perf_counter()
        besides = int(np.count_nonzero(search(source) >= 0))
        seconds = round(time.perf_counter() - began, 1)
        row = {"what": what, "planted": 0, "found": 0, "besides": besides, "images": len(source)}
        file.replace([{**row, "seed": 0, "seconds": seconds}])


if __name__ == "__main__":
    main()
