"""List the images and labels of a folder or a table, without decoding an image."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from fewlabels._internal.errors import InputError, did_you_mean
from fewlabels.data.source import UNLABELLED
from fewlabels.data.tables import SPLIT_ALIASES, TABLE_SUFFIXES, is_saved_dataset, read_table

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
"""Suffixes of image files, in lower case."""
UNLABELLED_FOLDER = "_unlabelled"
"""Name of the subfolder of images without a label."""
SPLITS = ("train", "test")
"""Values of a table's column ``split``, besides an empty cell."""
SPLIT_FOLDERS = {"train": "train", "test": "test", **SPLIT_ALIASES}
"""Split by folder name."""
MAX_CLASSES = 10_000
"""Number of classes above which a column of labels is refused as a mistake. Not tuned."""


@dataclass(frozen=True)
class Listing:
    """The images of a data set: parallel lists with one item per image."""

    root: Path
    names: list[str]
    """Paths relative to the root, with slashes; absolute for files of a table that lie below another root."""
    labels: np.ndarray
    """int64 [N]; -1 for an image without a label."""
    class_names: tuple[str, ...]
    """Class ``k`` is called ``class_names[k]``."""
    splits: list[str]
    """``train``, ``test``, or empty if the data do not say."""
    groups: list[str]
    """Group of each image, such as a patient; a group is never divided between training and test. Empty: no group."""
    contents: list[bytes] | None = None
    """Contents of the image files, if the table itself holds them."""

    def item(self, row: int) -> str | bytes:
        """Return the path of an image file, or its content if the table holds it."""
        return os.path.join(self.root, self.names[row]) if self.contents is None else self.contents[row]

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the group of each of these rows as an int64 number; None if no image has a group.

        An image without a group has a number of its own.
        """
        numbers = {group: number for number, group in enumerate(dict.fromkeys(filter(None, self.groups)))}
        if not numbers:
            return None
        single = len(numbers) + np.arange(len(rows))
        return np.array([numbers.get(self.groups[row], single[index]) for index, row in enumerate(rows)], np.int64)


def list_images(path: Path, roots: Sequence[Path] = ()) -> Listing:
    """List the images of a folder or a table.

    Args:
        path: a folder of images, a table, or a folder written by ``datasets``' ``save_to_disk``.
        roots: more folders that may contain a table's images, besides the table's own.

    Raises:
        InputError: if a file or row cannot be used; the message names it.
    """
    if path.suffix.lower() in TABLE_SUFFIXES or is_saved_dataset(path):
        return _list_table(path, roots)
    if path.is_dir():
        return _list_folder(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Pass a folder of images, or a table (.csv, .tsv, .parquet).")
    raise InputError(f"{path}: neither a folder nor a table. Pass a folder of images, or a .csv, .tsv or .parquet.")


def _list_folder(root: Path) -> Listing:
    """List a folder whose subfolders are classes; images outside of them have no label.

    If ``train`` and another folder of ``SPLIT_FOLDERS`` exist, these folders are splits with class folders of their
    own. Validation images become training images. Without ``test`` all splits are empty: a test set can be drawn.
    """
    names = sorted(_images_below(root, ""), key=lambda name: name.split("/"))
    if not names:
        raise InputError(f"{root}: no image here (looked for {', '.join(sorted(IMAGE_SUFFIXES))}, in subfolders, too).")
    classes, splits = [], []
    existing = {name: split for name, split in SPLIT_FOLDERS.items() if (root / name).is_dir()}
    has_splits, has_test = "train" in existing and len(existing) > 1, "test" in existing
    for name in names:
        parts = name.split("/")
        split = existing[parts.pop(0)] if has_splits and parts[0] in existing else ""
        splits.append(split if has_test else "")
        classes.append("" if len(parts) == 1 or parts[0] == UNLABELLED_FOLDER else parts[0])
    return make_listing(root, names, classes, splits, [""] * len(names))


def _images_below(root: Path, inside: str) -> Iterator[str]:
    """Yield the names, relative to the root, of the images in a folder and its subfolders; hidden ones are skipped."""
    with os.scandir(root / inside) as entries:
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.is_symlink():  # it may lead to a parent folder, without end
                    raise InputError(f"{root / name}: a link to a folder. Put the folder itself there, or remove it.")
                yield from _images_below(root, name)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                if entry.is_symlink() and not (root / name).resolve().is_relative_to(root.resolve()):
                    raise InputError(f"{root / name}: a link that leads out of {root}. Copy the image, or remove it.")
                if entry.is_file():
                    yield name


def _list_table(file: Path, roots: Sequence[Path]) -> Listing:
    """List a table with a column ``path`` and, optionally, ``label``, ``split`` and ``group``.

    Paths are absolute or relative to the table's folder.
    Parquet files and saved datasets may hold the image files themselves.
    """
    columns, contents = read_table(file)
    root = file if file.is_dir() else file.parent
    if "path" not in columns:
        meant = did_you_mean("path", columns)
        found = ", ".join(columns) or "none"
        raise InputError(f"{file}: no column 'path'; found {found}.{meant} Call the column of image files 'path'.")
    paths = columns["path"]
    if not paths:
        raise InputError(f"{file}: no rows. List at least one image.")
    empty = [""] * len(paths)
    splits = [split.lower() for split in columns.get("split", empty)]
    seen: dict[str, int] = {}
    for row, (path, split) in enumerate(zip(paths, splits, strict=True)):
        where = f"{file}, row {row + 2}"  # a spreadsheet counts from 1, and its first row is the header
        paths[row] = path = path if contents else _resolve_path(root, roots, path, where)
        if path in seen:
            raise InputError(f"{where}: {path} is in row {seen[path] + 2}, too. Remove one of them.")
        seen[path] = row
        if split not in ("", *SPLITS):
            raise InputError(f"{where}: split {split!r} is not train or test. Fix it, or leave it empty.")
    listing = make_listing(root, paths, columns.get("label", empty), splits, columns.get("group", empty))
    return replace(listing, contents=contents)


def _resolve_path(root: Path, roots: Sequence[Path], path: str, where: str) -> str:
    """Return the path relative to the root, with slashes; an absolute path if only another root contains it.

    Raises:
        InputError: if no root contains it.
    """
    if not path:
        raise InputError(f"{where}: no path. Name an image, or remove the row.")
    windows = PureWindowsPath(path)
    given = Path(*(windows.parts if "\\" in path else PurePosixPath(path).parts))
    resolved = (root / given).resolve()  # the root is ignored if the given path is absolute
    other_system = os.name != "nt" and (windows.drive or path.startswith("\\"))
    if not other_system and resolved.is_relative_to(root.resolve()):
        plain = not given.is_absolute() and ".." not in given.parts
        return given.as_posix() if plain else resolved.relative_to(root.resolve()).as_posix()
    if not other_system and any(resolved.is_relative_to(other.resolve()) for other in roots):
        return resolved.as_posix()
    folders = " or ".join(map(str, (root, *roots)))
    raise InputError(f"{where}: {path} is outside {folders}. Pass the folder that contains it with --root DIR.")


def make_listing(root: Path, names: list[str], classes: Sequence[str], splits: list[str], groups: list[str]) -> Listing:
    """Make a listing from the class name of each image; an empty class name means no label.

    Classes are numbered in alphabetical order; names that are numbers come first, in numerical order.

    Raises:
        InputError: if there are more than ``MAX_CLASSES`` classes.
    """
    class_names = tuple(sorted(set(classes) - {""}, key=_natural_order))
    if len(class_names) > MAX_CLASSES:
        found = f"{len(class_names):,} classes, more than {MAX_CLASSES:,}"
        raise InputError(f"{root}: {found}. Is the column named label the right one?")
    number = {name: cls for cls, name in enumerate(class_names)}
    labels = np.array([number.get(name, UNLABELLED) for name in classes], dtype=np.int64)
    return Listing(root, names, labels, class_names, splits, groups)


def _natural_order(name: str) -> tuple[int, str]:
    """Return a sort key: numbers in numerical order, then words in alphabetical order."""
    return (int(name), "") if name.isdecimal() and len(name) < 10 else (10**9, name)


def select_test(listing: Listing, test_fraction: float, seed: int) -> np.ndarray:
    """Return which images belong to the test set: bool [N].

    These are the images of the split ``test``. If no image has a split, the test set is drawn at random, stratified by
    class; a group is never divided.

    Args:
        listing: N images.
        test_fraction: fraction in 0..1 of the labelled images that is drawn.
        seed: of the draw.

    Raises:
        InputError: if the splits divide a group between training and test.
    """
    in_test = np.array([split == "test" for split in listing.splits])
    if not any(listing.splits):
        in_test = _draw_test(listing, test_fraction, seed)
    _refuse_divided_groups(listing.groups, in_test)
    return in_test


def _draw_test(listing: Listing, test_fraction: float, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(listing.names))
    group_of = [listing.groups[row] or f"row {row}" for row in range(len(listing.names))]
    members: dict[str, list[int]] = {}
    for row in order.tolist():
        members.setdefault(group_of[row], []).append(row)
    wanted = {cls: test_fraction * (listing.labels == cls).sum() for cls in range(len(listing.class_names))}
    in_test = np.zeros(len(group_of), bool)
    taken = dict.fromkeys(wanted, 0)
    for rows in members.values():
        classes = listing.labels[rows]
        labelled = classes[classes != UNLABELLED]
        if len(labelled) and all(taken[cls] + (labelled == cls).sum() <= wanted[cls] for cls in set(labelled.tolist())):
            in_test[rows] = True
            for cls in labelled.tolist():
                taken[cls] += 1
    return in_test


def _refuse_divided_groups(groups: Iterable[str], in_test: np.ndarray) -> None:
    group_in_test: dict[str, bool] = {}
    for group, image_in_test in zip(groups, in_test.tolist(), strict=True):
        if group and group_in_test.setdefault(group, image_in_test) != image_in_test:
            raise InputError(f"group {group}: images in training and in test. Give all of its images the same split.")
