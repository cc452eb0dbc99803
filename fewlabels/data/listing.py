"""What images there are, with which labels, before any is decoded: a folder, or a table."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from fewlabels._internal.errors import InputError, did_you_mean
from fewlabels.data.source import UNLABELLED
from fewlabels.data.tables import SPLITS_THERE, TABLES, is_saved_dataset, table_of

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
UNLABELLED_FOLDER = "_unlabelled"
SPLITS = ("train", "test")
SPLIT_FOLDERS = {"train": "train", "test": "test", **SPLITS_THERE}
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Listing:
    """Parallel lists, one item an image."""

    root: Path
    names: list[str]
    """Paths below the root, with slashes."""
    labels: np.ndarray
    """int64 [N]; -1 where an image has no label."""
    class_names: tuple[str, ...]
    splits: list[str]
    """``train``, ``test``, or empty where nothing is said."""
    groups: list[str]
    """Of images that must not be divided between training and test, such as those of one patient; empty: its own."""
    contents: list[bytes] | None = None
    """Of the image files, where a table holds them itself."""

    def item(self, row: int) -> str | bytes:
        """The path of an image's file, or the file's content."""
        return os.path.join(self.root, self.names[row]) if self.contents is None else self.contents[row]

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Numbers int64, one for each of the rows, equal where the group is; None: there are no groups."""
        numbers = {group: number for number, group in enumerate(dict.fromkeys(filter(None, self.groups)))}
        if not numbers:
            return None
        lone = len(numbers) + np.arange(len(rows))
        return np.array([numbers.get(self.groups[row], lone[at]) for at, row in enumerate(rows)], np.int64)


def listed(path: Path) -> Listing:
    """A folder of images, or a table.

    Raises:
        InputError: naming the file or row that cannot be used.
    """
    if path.suffix.lower() in TABLES or is_saved_dataset(path):
        return _of_table(path)
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Pass a folder of images, or a table (.csv, .tsv, .parquet).")
    raise InputError(f"{path}: neither a folder nor a table. Pass a folder of images, or a .csv, .tsv or .parquet.")


def _of_folder(root: Path) -> Listing:
    """Subfolders are classes, below ``train`` and ``test`` if there are both; the others' images have no label.

    Images for validation are for training; where they stand beside ``train`` alone, nothing is said of a test.
    """
    names = sorted(_images_below(root, ""), key=lambda name: name.split("/"))
    if not names:
        raise InputError(f"{root}: no image here (looked for {', '.join(sorted(SUFFIXES))}, in subfolders, too).")
    classes, splits = [], []
    there = {name: split for name, split in SPLIT_FOLDERS.items() if (root / name).is_dir()}
    divides, tests = "train" in there and len(there) > 1, "test" in there
    for name in names:
        parts = name.split("/")
        split = there[parts.pop(0)] if divides and parts[0] in there else ""
        splits.append(split if tests else "")
        classes.append("" if len(parts) == 1 or parts[0] == UNLABELLED_FOLDER else parts[0])
    return listing_of(root, names, classes, splits, [""] * len(names))


def _images_below(root: Path, inside: str) -> Iterator[str]:
    """Names below the root, of those in one folder of it; what is hidden is left out."""
    with os.scandir(root / inside) as entries:
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.is_symlink():  # it may lead round in circles
                    raise InputError(f"{root / name}: a link to a folder. Put the folder itself there, or remove it.")
                yield from _images_below(root, name)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                if entry.is_symlink() and not (root / name).resolve().is_relative_to(root.resolve()):
                    raise InputError(f"{root / name}: a link that leads out of {root}. Copy the image, or remove it.")
                if entry.is_file():
                    yield name


def _of_table(file: Path) -> Listing:
    """Columns ``path`` and, where there are, ``label``, ``split`` and ``group``; paths begin at the table's folder.

    Parquet files and saved datasets may hold the image files themselves.
    """
    columns, contents = table_of(file)
    root = file if file.is_dir() else file.parent
    if "path" not in columns:
        meant = did_you_mean("path", columns)
        found = ", ".join(columns) or "none"
        raise InputError(f"{file}: no column 'path'; found {found}.{meant} Name the column with the images path.")
    paths = columns["path"]
    if not paths:
        raise InputError(f"{file}: no rows. List at least one image.")
    empty = [""] * len(paths)
    splits = [split.lower() for split in columns.get("split", empty)]
    seen: dict[str, int] = {}
    for row, (path, split) in enumerate(zip(paths, splits, strict=True)):
        where = f"{file}, row {row + 2}"  # as a spreadsheet counts, below its head
        paths[row] = path = path if contents else _inside(root, path, where)
        if path in seen:
            raise InputError(f"{where}: {path} is in row {seen[path] + 2}, too. Remove one of them.")
        seen[path] = row
        if split not in ("", *SPLITS):
            raise InputError(f"{where}: split {split!r} is not train or test. Fix it, or leave it empty.")
    listing = listing_of(root, paths, columns.get("label", empty), splits, columns.get("group", empty))
    return replace(listing, contents=contents)


def _inside(root: Path, path: str, where: str) -> str:
    """The path below the root, with slashes."""
    if not path:
        raise InputError(f"{where}: no path. Name an image, or remove the row.")
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or PureWindowsPath(path).drive:
        raise InputError(f"{where}: {path} is absolute. Give the path from the table's folder.")
    parts = PureWindowsPath(path).parts if "\\" in path else PurePosixPath(path).parts
    inside = PurePosixPath(*parts)
    if ".." in inside.parts or not (root / inside).resolve().is_relative_to(root.resolve()):
        raise InputError(f"{where}: {path} leads out of {root}. Images must lie below the table's folder.")
    return str(inside)


def listing_of(root: Path, names: list[str], classes: Sequence[str], splits: list[str], groups: list[str]) -> Listing:
    """Parallel lists with the names of classes as numbers; an empty one is none.

    Raises:
        InputError: if there are more classes than can be meant.
    """
    class_names = tuple(sorted(set(classes) - {""}, key=_as_counted))
    if len(class_names) > MOST_CLASSES:
        found = f"{len(class_names):,} classes, more than {MOST_CLASSES:,}"
        raise InputError(f"{root}: {found}. Is the column named label the right one?")
    number = {name: cls for cls, name in enumerate(class_names)}
    labels = np.array([number.get(name, UNLABELLED) for name in classes], dtype=np.int64)
    return Listing(root, names, labels, class_names, splits, groups)


def _as_counted(name: str) -> tuple[int, str]:
    """Numbers in the order of numbers, before words."""
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (10**9, name)


def divided(listing: Listing, share: float, seed: int) -> np.ndarray:
    """Which images are for the test: bool [N].

    What the splits say holds. Where they say nothing, a share of the labelled images is drawn at random, of each class
    alike; images of one group stay together.

    Args:
        listing: see there.
        share: of the labelled images, in 0..1.
        seed: of the draw.

    Raises:
        InputError: if a group is divided between training and test.
    """
    tested = np.array([split == "test" for split in listing.splits])
    if not any(listing.splits):
        tested = _drawn(listing, share, seed)
    _refuse_divided(listing.groups, tested)
    return tested


def _drawn(listing: Listing, share: float, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(listing.names))
    key = [listing.groups[row] or f"row {row}" for row in range(len(listing.names))]
    members: dict[str, list[int]] = {}
    for row in order.tolist():
        members.setdefault(key[row], []).append(row)
    wanted = {cls: share * (listing.labels == cls).sum() for cls in range(len(listing.class_names))}
    tested = np.zeros(len(key), bool)
    taken = dict.fromkeys(wanted, 0)
    for rows in members.values():
        classes = listing.labels[rows]
        labelled = classes[classes != UNLABELLED]
        if len(labelled) and all(taken[cls] + (labelled == cls).sum() <= wanted[cls] for cls in set(labelled.tolist())):
            tested[rows] = True
            for cls in labelled.tolist():
                taken[cls] += 1
    return tested


def _refuse_divided(groups: Iterable[str], tested: np.ndarray) -> None:
    side: dict[str, bool] = {}
    for group, test in zip(groups, tested.tolist(), strict=True):
        if group and side.setdefault(group, test) != test:
            raise InputError(f"group {group}: images in training and in test. Give all of a group the same split.")
