"""Find faults of a data set: unreadable files, duplicates, leaks, label issues, outliers. No file is changed."""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from fewlabels._internal.environment import available_cores
from fewlabels.audit.file_facts import Facts, facts_of, facts_of_array
from fewlabels.audit.label_errors import find_label_issues
from fewlabels.audit.near_duplicates import near_duplicates, near_duplicates_within
from fewlabels.audit.outliers import outliers
from fewlabels.data.arrays import ARRAY_SUFFIXES, load_arrays
from fewlabels.data.dataset import decoded_folder, existing_path, named_arrays
from fewlabels.data.decoded import CHUNK, ProgressCallback, decode_images
from fewlabels.data.listing import Listing, list_images
from fewlabels.data.named import DIGITS, ELPV, FASHION_MNIST, elpv_listing
from fewlabels.data.source import UNLABELLED, ArraySource
from fewlabels.data.workers import WORKERS_FROM, workers
from fewlabels.features.hog import gradient_features

MIN_CLASS_LABELS = 5
"""Number of labels below which a class is reported, and below which its labels are not checked. Not tuned."""
MAX_CLASS_RATIO = 10
"""Ratio of the largest class to the smallest above which the imbalance is reported. Not tuned."""
MAX_THUMBNAILS = 60
"""Number of findings of a kind that have thumbnails, at most."""
THUMBNAIL_SIDE = 64
"""Side of a thumbnail in pixels, at most."""

UNUSABLE = ("corrupt", "channels", "constant")
"""Kinds of images that cannot be used: unreadable, with other channels or another range of pixels, without content."""
DUPLICATES = ("duplicate", "conflict")
"""Kinds of images with equal pixels: with the same label or none, and with different labels."""
KINDS = (*UNUSABLE, *DUPLICATES, "near-duplicate", "leak", "label issue", "outlier", "few labels", "imbalance")
"""All kinds of findings, in the order of the report."""


@dataclass(frozen=True)
class Finding:
    """A possible fault of an image or a class."""

    kind: str
    """One of :data:`KINDS`."""
    image: str
    """Name of the image; empty if the finding is about a class."""
    other: str
    """For duplicates and leaks the name of the image to keep, while ``image`` is to leave out; else empty."""
    label: str
    """Class of the image, or the class that the finding is about; empty if there is none."""
    why: str
    """Explanation in a few words."""


@dataclass(frozen=True)
class Scan:
    """The images of a data set, read and decoded."""

    listing: Listing
    """All images, readable or not."""
    facts: list[Facts | str]
    """Properties of each image of the listing, or an error message."""
    source: ArraySource
    """The usable images, preprocessed to one shape and type."""
    rows: np.ndarray
    """int64: the row of the listing for each image of ``source``."""
    incompatible: dict[int, str]
    """Reason by row of the listing, for readable images that cannot be used together with the others."""

    def label(self, row: int) -> str:
        """Return the class name of a row; empty if it has no label."""
        cls = self.listing.labels[row]
        return "" if cls == UNLABELLED else self.listing.class_names[cls]

    def finding(self, kind: str, row: int, why: str, other: int | None = None) -> Finding:
        """Return a finding about an image, with the rows of the image and of the other one."""
        names = self.listing.names
        return Finding(kind, names[row], "" if other is None else names[other], self.label(row), why)


def scan(
    data: str,
    folder: Path | None = None,
    size: int | None = None,
    say: Callable[[str], None] = print,
    on_progress: ProgressCallback | None = None,
    roots: Sequence[Path] = (),
) -> Scan:
    """Read and decode every image of a data set.

    Args:
        data: path or name of the data set, as for :func:`fewlabels.data.dataset.open_dataset`.
        folder: folder with Fashion-MNIST's files.
        size: pixels of the longer side to which image files are resized; None: chosen from the images.
        say: receives a line for each step that takes long.
        on_progress: called while image files are read and decoded.
        roots: more folders that may contain a table's images, besides the table's own.

    Raises:
        InputError: if there are no images, or none can be read.
    """
    if data in (FASHION_MNIST, DIGITS):
        train, test = named_arrays(data, folder, say)
        parts = {"train": train, "test": test}
        names = [f"{split} row {row}" for split, part in parts.items() for row in range(len(part))]
        labels = np.concatenate([part.labels for part in parts.values()])
        splits = [split for split, part in parts.items() for _ in range(len(part))]
        listing = Listing(Path(data), names, labels, train.class_names, splits, [""] * len(names))
        kind = "IDX" if data == FASHION_MNIST else "array"
        return _scan_array(listing, np.concatenate([part.images for part in parts.values()]), kind)
    if data == ELPV:
        return _scan_files(elpv_listing(say), size, on_progress)
    path = existing_path(data)
    if path.suffix.lower() in ARRAY_SUFFIXES and not path.is_dir():
        images, listing, _ = load_arrays(path, size)
        return _scan_array(listing, images, path.suffix[1:].upper())
    return _scan_files(list_images(path, roots), size, on_progress)


def _scan_files(listing: Listing, size: int | None, on_progress: ProgressCallback | None) -> Scan:
    items = [listing.item(row) for row in range(len(listing.names))]
    facts = _read_facts(items, on_progress or (lambda done, total: None))
    decoded = decode_images(listing, decoded_folder(), size, on_progress)
    incompatible = {row: line for row, line in decoded.failed.items() if not isinstance(facts[row], str)}
    return Scan(listing, facts, decoded.source, decoded.rows, incompatible)


def findings(scanned: Scan) -> list[Finding]:
    """Return all findings, sorted by kind; label issues and outliers are sorted with the worst first."""
    distinct, duplicates = _duplicates(scanned)
    conflicting = {finding.other for finding in duplicates if finding.kind == "conflict"}
    undisputed = np.array([scanned.listing.names[row] not in conflicting for row in scanned.rows[distinct]], bool)
    found = [*_unusable(scanned), *duplicates, *_leaks(scanned, distinct), *_class_sizes(scanned)]
    if len(distinct):
        source = scanned.source.subset(distinct)
        features = gradient_features(source)
        found += _near_duplicates(scanned, distinct, source)
        found += _label_issues(scanned, distinct[undisputed], features[undisputed])
        found += _outliers(scanned, distinct, source, features)
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def left_out(found: Sequence[Finding]) -> set[str]:
    """Return names of images to leave out: unusable ones, surplus duplicates, training images that leak."""
    names = {finding.image for finding in found if finding.kind in (*UNUSABLE, *DUPLICATES)}
    return names | {finding.image for finding in found if finding.kind == "leak" and finding.other not in names}


def clean_rows(scanned: Scan, found: Sequence[Finding]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield name, label, split, group and note of each image of the clean table.

    An image whose duplicates have different labels gets an empty label.
    """
    excluded, notes = left_out(found), defaultdict(list)
    disputed = {finding.other for finding in found if finding.kind == "conflict"}
    for finding in found:
        if finding.kind in ("near-duplicate", "label issue", "outlier"):
            notes[finding.image].append(f"{finding.kind}: {finding.why}")
    listing = scanned.listing
    for row, name in enumerate(listing.names):
        if name in excluded:
            continue
        label = scanned.label(row)
        if name in disputed:
            notes[name].append("no label: duplicates have different labels")
            label = ""
        yield name, label, listing.splits[row], listing.groups[row], "; ".join(notes[name])


def as_json(scanned: Scan, found: Sequence[Finding]) -> dict[str, Any]:
    """Return the content of ``check.json``: counts, findings, and thumbnails of the first findings of each kind."""
    listing, facts = scanned.listing, [each for each in scanned.facts if isinstance(each, Facts)]
    labels = Counter(scanned.label(row) for row, each in enumerate(scanned.facts) if isinstance(each, Facts))
    unlabelled = labels.pop("", 0)
    return {
        "counts": {
            "images": len(listing.names),
            "readable": len(facts),
            "labelled": labels.total(),
            "unlabelled": unlabelled,
            "training": listing.splits.count("train"),
            "test": listing.splits.count("test"),
            "left_out": len(left_out(found)),
        },
        "classes": {name: labels[name] for name in listing.class_names},
        "sizes": _counts(f"{each.width}x{each.height}" for each in facts),
        "channels": _counts(str(each.channels) for each in facts),
        "bits": _counts(str(each.bits) for each in facts),
        "formats": _counts(each.format for each in facts),
        "found": {kind: number for kind in KINDS if (number := sum(each.kind == kind for each in found))},
        "findings": [asdict(finding) for finding in found],
        "thumbs": _thumbnails(scanned, found),
    }


def _counts(values: Iterator[str]) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def _scan_array(listing: Listing, images: np.ndarray, kind: str) -> Scan:
    source = ArraySource(images, listing.labels, listing.class_names, str(listing.root))
    facts: list[Facts | str] = [facts_of_array(image, kind) for image in source.images]
    return Scan(listing, facts, source, np.arange(len(images)), {})


def _read_facts(items: list[str | bytes], on_progress: ProgressCallback) -> list[Facts | str]:
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    found: list[Facts | str] = []

    def gather(parts: Iterator[list[Facts | str]]) -> None:
        for part in parts:
            found.extend(part)
            on_progress(len(found), len(items))

    if len(items) >= WORKERS_FROM and available_cores() > 1:
        with suppress(BrokenProcessPool), workers() as pool:  # a worker that needs too much memory may be killed
            gather(pool.map(facts_of, chunks))
    gather(map(facts_of, chunks[-(-len(found) // CHUNK) :]))
    return found


# Findings by kind


def _unusable(scanned: Scan) -> Iterator[Finding]:
    for row, facts in enumerate(scanned.facts):
        if isinstance(facts, str):
            yield scanned.finding("corrupt", row, facts)
        elif row in scanned.incompatible:
            yield scanned.finding("channels", row, scanned.incompatible[row])
        elif facts.constant:
            yield scanned.finding("constant", row, "all pixels are equal")


def _duplicates(scanned: Scan) -> tuple[np.ndarray, list[Finding]]:
    """Return rows of ``scanned.source`` without duplicates and constant images, int64, and the duplicates found.

    Of images with equal pixels one is kept: preferably with a label, then preferably from the test set.
    """
    listing, groups, source_row = scanned.listing, defaultdict(list), {}
    for index, row in enumerate(scanned.rows.tolist()):
        facts = scanned.facts[row]
        if isinstance(facts, Facts) and not facts.constant:  # the file may have become unreadable after it was cached
            groups[facts.digest].append(row)
            source_row[row] = index
    distinct, found = [], []
    for members in groups.values():
        kept = min(members, key=lambda row: (listing.labels[row] == UNLABELLED, listing.splits[row] != "test", row))
        distinct.append(source_row[kept])
        labels = sorted({scanned.label(row) for row in members} - {""})
        for row in members:
            if row != kept and len(labels) > 1:
                why = f"the same pixels have the labels {' and '.join(labels)}"
                found.append(scanned.finding("conflict", row, why, kept))
            elif row != kept:
                found.append(scanned.finding("duplicate", row, "the same pixels", kept))
    return np.array(sorted(distinct), np.int64), found


def _near_duplicates(scanned: Scan, distinct: np.ndarray, source: ArraySource) -> Iterator[Finding]:
    rows = scanned.rows[distinct].tolist()
    seen = set()
    for index, other in enumerate(near_duplicates_within(source).tolist()):
        pair = (max(index, other), min(index, other))
        if other >= 0 and pair not in seen:
            seen.add(pair)
            yield scanned.finding("near-duplicate", rows[pair[0]], "nearly the same pixels", rows[pair[1]])


def _leaks(scanned: Scan, distinct: np.ndarray) -> Iterator[Finding]:
    """Yield training images that have a duplicate or near-duplicate in the test set, or share a group with it."""
    listing = scanned.listing
    in_test = np.array([split == "test" for split in listing.splits], bool)
    if not in_test.any():
        return
    test_digests: dict[str, int] = {}
    for row, facts in enumerate(scanned.facts):
        if in_test[row] and isinstance(facts, Facts) and not facts.constant:
            test_digests.setdefault(facts.digest, row)
    for row, facts in enumerate(scanned.facts):
        if not in_test[row] and isinstance(facts, Facts) and facts.digest in test_digests:
            yield scanned.finding("leak", row, "the same pixels in training and in test", test_digests[facts.digest])
    rows = scanned.rows[distinct]
    train, test = distinct[~in_test[rows]], distinct[in_test[rows]]
    if len(train) and len(test):
        found = near_duplicates(scanned.source.subset(train), scanned.source.subset(test))
        for index in np.flatnonzero(found >= 0).tolist():
            other = int(scanned.rows[test[found[index]]])
            yield scanned.finding(
                "leak", int(scanned.rows[train[index]]), "nearly the same pixels in training and in test", other
            )
    test_groups = {listing.groups[row] for row in np.flatnonzero(in_test).tolist()} - {""}
    for row, group in enumerate(listing.groups):
        if group in test_groups and not in_test[row] and isinstance(scanned.facts[row], Facts):
            yield scanned.finding("leak", row, f"group {group} is in training and in test")


def _label_issues(scanned: Scan, source_rows: np.ndarray, features: np.ndarray) -> Iterator[Finding]:
    labels = scanned.source.labels[source_rows]
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(scanned.listing.class_names))
    labelled = np.flatnonzero(labels != UNLABELLED)
    usable = labelled[counts[labels[labelled]] >= MIN_CLASS_LABELS]
    groups = scanned.listing.groups_of(scanned.rows[source_rows[usable]])
    for issue in find_label_issues(features[usable], labels[usable], groups=groups):
        row = int(scanned.rows[source_rows[usable[issue.row]]])
        suggested = scanned.listing.class_names[issue.suggested]
        yield scanned.finding("label issue", row, f"looks like {suggested} ({issue.confidence:.0%})")


def _outliers(scanned: Scan, distinct: np.ndarray, source: ArraySource, features: np.ndarray) -> Iterator[Finding]:
    for index, ratio in outliers(source, features):
        row = int(scanned.rows[distinct[index]])
        yield scanned.finding("outlier", row, f"{ratio:.1f} times the median distance to other images")


def _class_sizes(scanned: Scan) -> Iterator[Finding]:
    names = scanned.listing.class_names
    readable = np.array([isinstance(facts, Facts) for facts in scanned.facts], bool)
    labels = scanned.listing.labels[readable]
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(names))
    for name, count in zip(names, counts.tolist(), strict=True):
        if count < MIN_CLASS_LABELS:
            yield Finding("few labels", "", "", name, f"{count} labels; a class needs {MIN_CLASS_LABELS} or more")
    if len(names) > 1 and counts.max() > MAX_CLASS_RATIO * counts.min():
        largest, smallest = names[counts.argmax()], names[counts.argmin()]
        why = f"{counts.min():,} labels, while {largest} has {counts.max():,}"
        yield Finding("imbalance", "", "", smallest, why)


# Thumbnails


def _thumbnails(scanned: Scan, found: Sequence[Finding]) -> dict[str, str]:
    """Return thumbnails by image name, as WebP in base64."""
    names: set[str] = set()
    for kind in KINDS:
        for finding in [each for each in found if each.kind == kind][:MAX_THUMBNAILS]:
            names |= {finding.image, finding.other}
    source_row = {scanned.listing.names[row]: index for index, row in enumerate(scanned.rows.tolist())}
    return {name: _thumbnail(scanned.source, source_row[name]) for name in sorted(names) if name in source_row}


def _thumbnail(source: ArraySource, row: int) -> str:
    """Return the thumbnail of a row; images without three channels show their first one."""
    image = source.read(np.array([row])).float()
    scale = min(1.0, THUMBNAIL_SIDE / max(image.shape[2:]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[2:])
        image = F.adaptive_avg_pool2d(image, (height, width))
    pixels = image[0].round().to(torch.uint8).numpy()
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
