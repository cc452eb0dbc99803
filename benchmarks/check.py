"""How many of the faults planted into folders of real images ``fewlabels check`` finds, and what else it names.

Five folders, as :mod:`tests.data.make_mess` makes them; then 5,000 training images and the test images as
they are.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ResultFile
from fewlabels.audit.near_duplicates import twins, twins_within
from fewlabels.audit.scan import Finding, findings, looked_at
from fewlabels.data.fashion_mnist import fashion_mnist
from tests.data.make_mess import Planted, make_leaky_table, make_mess

SEEDS = (0, 1, 2, 3, 4)
UNTOUCHED = 5000


def rows_of(planted: Planted, found: list[Finding]) -> list[dict[str, Any]]:
    """For each kind of fault how many are planted, how many of them found, and how many others named."""

    def named(*kinds: str) -> list[str]:
        return [finding.image for finding in found if finding.kind in kinds]

    def paired(*kinds: str) -> set[Any]:
        return {frozenset((finding.image, finding.other)) for finding in found if finding.kind in kinds}

    def row(what: str, wanted: set[Any], got: set[Any]) -> dict[str, Any]:
        there = len(wanted & got)
        return {"what": what, "planted": len(wanted), "found": there, "besides": len(got - wanted)}

    doubts, flipped = named("doubtful label"), set(planted.flipped)
    return [
        row("corrupt", set(planted.corrupt), set(named("corrupt"))),
        row("duplicates", set(map(frozenset, planted.duplicates.items())), paired("duplicate", "conflict")),
        row("near-duplicates", set(map(frozenset, planted.near.items())), paired("near-duplicate")),
        row("leaked copies", set(map(frozenset, planted.leaks.items())), paired("leak")),
        row("flipped labels, as many of the first doubts", flipped, set(doubts[: len(flipped)])),
        row("flipped labels, all doubts", flipped, set(doubts)),
        row("foreign", set(planted.foreign), set(named("foreign"))),
        row("constant", set(planted.constant), set(named("constant"))),
    ]


def main() -> None:
    """Measure the folders that have no rows yet."""
    file = ResultFile("check", "python -m benchmarks.check", keys=("what", "seed"))
    train = fashion_mnist().train
    for seed in SEEDS:
        if file.has(what="corrupt", seed=seed):
            continue
        with tempfile.TemporaryDirectory() as folder:
            planted = make_leaky_table(make_mess(Path(folder) / "photos", train, seed), seed)
            began = time.perf_counter()
            rows = rows_of(planted, findings(looked_at(str(planted.table))))
            seconds = round(time.perf_counter() - began, 1)
        file.replace([{**row, "seed": seed, "images": len(planted.labels), "seconds": seconds} for row in rows])
    for what, source, search in (
        ("untouched", train.first_k(UNTOUCHED), twins_within),
        ("test", fashion_mnist().test, partial(twins, others=train)),
    ):
        if file.has(what=what, seed=0):
            continue
        began = time.perf_counter()
        alike = int(np.count_nonzero(search(source) >= 0))
        seconds = round(time.perf_counter() - began, 1)
        row = {"what": what, "planted": 0, "found": 0, "besides": alike, "images": len(source)}
        file.replace([{**row, "seed": 0, "seconds": seconds}])


if __name__ == "__main__":
    main()
