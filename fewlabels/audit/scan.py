"""What is wrong with a set of images: files, copies, leaks, labels. Nothing is changed and nothing is left out here."""

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

from fewlabels._internal.environment import usable_cores
from fewlabels.audit.file_facts import Facts, facts_of, facts_of_array
from fewlabels.audit.label_errors import doubtful
from fewlabels.audit.near_duplicates import twins, twins_within
from fewlabels.audit.outliers import outliers
from fewlabels.data.arrays import ARRAYS, arrays_listed
from fewlabels.data.dataset import FASHION_MNIST, decoded_folder, existing
from fewlabels.data.decoded import CHUNK, Told, decoded_images
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.data.listing import Listing, listed
from fewlabels.data.source import UNLABELLED, ArraySource
from fewlabels.data.workers import WORKERS_FROM, workers
from fewlabels.features.hog import gradient_features

FEW = 5
"""Labels that a class needs."""
UNEVEN = 10
"""Times as many labels as another class that a class may have."""
SHOWN = 60
"""Findings of a kind that have thumbnails."""
THUMB = 64
"""Pixels of a thumbnail, at most."""

UNUSABLE = ("corrupt", "channels", "constant")
COPIES = ("duplicate", "conflict")
KINDS = (*UNUSABLE, *COPIES, "near-duplicate", "leak", "doubtful label", "foreign", "few labels", "imbalance")


@dataclass(frozen=True)
class Finding:
    """Something that may be wrong."""

    kind: str
    """One of :data:`KINDS`."""
    image: str
    """Its name; empty where it is about a class."""
    other: str
    """The image that it is a copy of, if it is one; of copies, ``image`` is the one to leave out."""
    label: str
    """Of the image, or the class that it is about; empty: none."""
    why: str


@dataclass(frozen=True)
class Looked:
    """A set of images, each looked at by itself."""

    listing: Listing
    facts: list[Facts | str]
    """Of each image of the listing, or what is wrong with its file."""
    source: ArraySource
    """Those that can be used together, in one form."""
    rows: np.ndarray
    """int64: their rows of the listing."""
    unlike: dict[int, str]
    """By row, what sets a readable image apart from the others, so that it is not used."""

    def label(self, row: int) -> str:
        """Its class; empty: none."""
        cls = self.listing.labels[row]
        return "" if cls == UNLABELLED else self.listing.class_names[cls]

    def finding(self, kind: str, row: int, why: str, other: int | None = None) -> Finding:
        """About an image."""
        names = self.listing.names
        return Finding(kind, names[row], "" if other is None else names[other], self.label(row), why)


def looked_at(
    data: str,
    folder: Path | None = None,
    size: int | None = None,
    say: Callable[[str], None] = print,
    told: Told | None = None,
) -> Looked:
    """Read every image.

    Args:
        data: as for :func:`fewlabels.data.dataset.opened`; so are the others.
        folder: where Fashion-MNIST is.
        size: pixels of the longer side at which images are compared; None: by the images.
        say: receives a line for whatever takes a while.
        told: progress.

    Raises:
        InputError: if there is nothing that could be checked.
    """
    if data == FASHION_MNIST:
        splits = fashion_mnist(folder, say=say)
        parts = {"train": splits.train, "test": splits.test}
        names = [f"{split} row {row}" for split, part in parts.items() for row in range(len(part))]
        labels = np.concatenate([part.labels for part in parts.values()])
        of_splits = [split for split, part in parts.items() for _ in range(len(part))]
        listing = Listing(splits.folder, names, labels, splits.train.class_names, of_splits, [""] * len(names))
        return _of_array(listing, np.concatenate([part.images for part in parts.values()]), "IDX")
    path = existing(data)
    if path.suffix.lower() in ARRAYS and not path.is_dir():
        images, listing, _ = arrays_listed(path, size)
        return _of_array(listing, images, path.suffix[1:].upper())
    listing = listed(path)
    items = [listing.item(row) for row in range(len(listing.names))]
    facts = _facts(items, told or (lambda done, of: None))
    found = decoded_images(listing, decoded_folder(), size, told)
    unlike = {row: line for row, line in found.failed.items() if not isinstance(facts[row], str)}
    return Looked(listing, facts, found.source, found.rows, unlike)


def findings(looked: Looked) -> list[Finding]:
    """All that may be wrong, kind by kind; of a kind, the worst first where there is an order."""
    distinct, duplicates = _duplicates(looked)
    conflicting = {finding.other for finding in duplicates if finding.kind == "conflict"}
    sure = np.array([looked.listing.names[row] not in conflicting for row in looked.rows[distinct]], bool)
    found = [*_unusable(looked), *duplicates, *_leaks(looked, distinct), *_classes(looked)]
    if len(distinct):
        source = looked.source.subset(distinct)
        features = gradient_features(source)
        found += _near_duplicates(looked, distinct, source)
        found += _doubtful_labels(looked, distinct[sure], features[sure])
        found += _foreign(looked, distinct, source, features)
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def left_out(found: Sequence[Finding]) -> set[str]:
    """Images that a clean set goes without: unusable ones, all but one of each, copies of test images."""
    names = {finding.image for finding in found if finding.kind in (*UNUSABLE, *COPIES)}
    return names | {finding.image for finding in found if finding.kind == "leak" and finding.other not in names}


def clean_rows(looked: Looked, found: Sequence[Finding]) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, label, split, group and note of each image of a clean set.

    A label is taken away where copies of the image have another.
    """
    without, notes = left_out(found), defaultdict(list)
    disputed = {finding.other for finding in found if finding.kind == "conflict"}
    for finding in found:
        if finding.kind in ("near-duplicate", "doubtful label", "foreign"):
            notes[finding.image].append(f"{finding.kind}: {finding.why}")
    listing = looked.listing
    for row, name in enumerate(listing.names):
        if name in without:
            continue
        label = looked.label(row)
        if name in disputed:
            notes[name].append("no label: copies have several")
            label = ""
        yield name, label, listing.splits[row], listing.groups[row], "; ".join(notes[name])


def as_json(looked: Looked, found: Sequence[Finding]) -> dict[str, Any]:
    """Counts, sizes, findings, and thumbnails of the first findings of each kind."""
    listing, facts = looked.listing, [each for each in looked.facts if isinstance(each, Facts)]
    labels = Counter(looked.label(row) for row, each in enumerate(looked.facts) if isinstance(each, Facts))
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
        "sizes": _counted(f"{each.width}x{each.height}" for each in facts),
        "channels": _counted(str(each.channels) for each in facts),
        "bits": _counted(str(each.bits) for each in facts),
        "formats": _counted(each.format for each in facts),
        "found": {kind: number for kind in KINDS if (number := sum(each.kind == kind for each in found))},
        "findings": [asdict(finding) for finding in found],
        "thumbs": _thumbs(looked, found),
    }


def _counted(values: Iterator[str]) -> dict[str, int]:
    """The commonest first."""
    return dict(Counter(values).most_common())


def _of_array(listing: Listing, images: np.ndarray, kind: str) -> Looked:
    source = ArraySource(images, listing.labels, listing.class_names, str(listing.root))
    facts: list[Facts | str] = [facts_of_array(image, kind) for image in source.images]
    return Looked(listing, facts, source, np.arange(len(images)), {})


def _facts(items: list[str | bytes], told: Told) -> list[Facts | str]:
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    found: list[Facts | str] = []

    def gather(parts: Iterator[list[Facts | str]]) -> None:
        for part in parts:
            found.extend(part)
            told(len(found), len(items))

    if len(items) >= WORKERS_FROM and usable_cores() > 1:
        with suppress(BrokenProcessPool), workers() as pool:  # a worker may be killed for memory
            gather(pool.map(facts_of, chunks))
    gather(map(facts_of, chunks[-(-len(found) // CHUNK) :]))
    return found


# What is found


def _unusable(looked: Looked) -> Iterator[Finding]:
    for row, facts in enumerate(looked.facts):
        if isinstance(facts, str):
            yield looked.finding("corrupt", row, facts)
        elif row in looked.unlike:
            yield looked.finding("channels", row, looked.unlike[row])
        elif facts.constant:
            yield looked.finding("constant", row, "all pixels are alike")


def _duplicates(looked: Looked) -> tuple[np.ndarray, list[Finding]]:
    """Places of the images that differ from each other and within themselves, int64; and the copies of them.

    Of equal images a labelled one is kept, if there is; of these one of the test.
    """
    listing, groups, place_of = looked.listing, defaultdict(list), {}
    for place, row in enumerate(looked.rows.tolist()):
        facts = looked.facts[row]
        if isinstance(facts, Facts) and not facts.constant:  # it may have been readable once, and is no more
            groups[facts.digest].append(row)
            place_of[row] = place
    distinct, found = [], []
    for members in groups.values():
        kept = min(members, key=lambda row: (listing.labels[row] == UNLABELLED, listing.splits[row] != "test", row))
        distinct.append(place_of[kept])
        labels = sorted({looked.label(row) for row in members} - {""})
        for row in members:
            if row != kept and len(labels) > 1:
                found.append(looked.finding("conflict", row, f"the same pixels are called {_listed(labels)}", kept))
            elif row != kept:
                found.append(looked.finding("duplicate", row, "the same pixels", kept))
    return np.array(sorted(distinct), np.int64), found


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)


def _near_duplicates(looked: Looked, distinct: np.ndarray, source: ArraySource) -> Iterator[Finding]:
    rows = looked.rows[distinct].tolist()
    seen = set()
    for place, twin in enumerate(twins_within(source).tolist()):
        pair = (max(place, twin), min(place, twin))
        if twin >= 0 and pair not in seen:
            seen.add(pair)
            yield looked.finding("near-duplicate", rows[pair[0]], "nearly the same pixels", rows[pair[1]])


def _leaks(looked: Looked, distinct: np.ndarray) -> Iterator[Finding]:
    """Training images that are in the test, too, or belong to a group of which others are."""
    listing = looked.listing
    tested = np.array([split == "test" for split in listing.splits], bool)
    if not tested.any():
        return
    in_test: dict[str, int] = {}
    for row, facts in enumerate(looked.facts):
        if tested[row] and isinstance(facts, Facts) and not facts.constant:
            in_test.setdefault(facts.digest, row)
    for row, facts in enumerate(looked.facts):
        if not tested[row] and isinstance(facts, Facts) and facts.digest in in_test:
            yield looked.finding("leak", row, "the same pixels in training and in test", in_test[facts.digest])
    rows = looked.rows[distinct]
    ours, theirs = distinct[~tested[rows]], distinct[tested[rows]]
    if len(ours) and len(theirs):
        found = twins(looked.source.subset(ours), looked.source.subset(theirs))
        for place in np.flatnonzero(found >= 0).tolist():
            other = int(looked.rows[theirs[found[place]]])
            yield looked.finding(
                "leak", int(looked.rows[ours[place]]), "nearly the same pixels in training and in test", other
            )
    divided = {listing.groups[row] for row in np.flatnonzero(tested).tolist()} - {""}
    for row, group in enumerate(listing.groups):
        if group in divided and not tested[row] and isinstance(looked.facts[row], Facts):
            yield looked.finding("leak", row, f"group {group} is in training and in test")


def _doubtful_labels(looked: Looked, places: np.ndarray, features: np.ndarray) -> Iterator[Finding]:
    labels = looked.source.labels[places]
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(looked.listing.class_names))
    known = np.flatnonzero(labels != UNLABELLED)
    usable = known[counts[labels[known]] >= FEW]
    groups = looked.listing.groups_of(looked.rows[places[usable]])
    for doubt in doubtful(features[usable], labels[usable], groups=groups):
        row = int(looked.rows[places[usable[doubt.place]]])
        suggested = looked.listing.class_names[doubt.suggested]
        yield looked.finding("doubtful label", row, f"looks like {suggested} ({doubt.confidence:.0%})")


def _foreign(looked: Looked, distinct: np.ndarray, source: ArraySource, features: np.ndarray) -> Iterator[Finding]:
    for place, times in outliers(source, features):
        row = int(looked.rows[distinct[place]])
        yield looked.finding("foreign", row, f"{times:.1f} times as far from all others as usual")


def _classes(looked: Looked) -> Iterator[Finding]:
    names = looked.listing.class_names
    readable = np.array([isinstance(facts, Facts) for facts in looked.facts], bool)
    labels = looked.listing.labels[readable]
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(names))
    for name, count in zip(names, counts.tolist(), strict=True):
        if count < FEW:
            yield Finding("few labels", "", "", name, f"{count} labels; a class needs {FEW} or more")
    if len(names) > 1 and counts.max() > UNEVEN * counts.min():
        most, least = names[counts.argmax()], names[counts.argmin()]
        why = f"{counts.min():,} labels, while {most} has {counts.max():,}"
        yield Finding("imbalance", "", "", least, why)


# Thumbnails


def _thumbs(looked: Looked, found: Sequence[Finding]) -> dict[str, str]:
    """WebP in base64, by name."""
    names: set[str] = set()
    for kind in KINDS:
        for finding in [each for each in found if each.kind == kind][:SHOWN]:
            names |= {finding.image, finding.other}
    place_of = {looked.listing.names[row]: place for place, row in enumerate(looked.rows.tolist())}
    return {name: _thumb(looked.source, place_of[name]) for name in sorted(names) if name in place_of}


def _thumb(source: ArraySource, place: int) -> str:
    """Three channels are colours; of others the first is shown."""
    image = source.read(np.array([place])).float()
    scale = min(1.0, THUMB / max(image.shape[2:]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[2:])
        image = F.adaptive_avg_pool2d(image, (height, width))
    pixels = image[0].round().to(torch.uint8).numpy()
    picture = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
