"""Images and labels in one file of arrays: NumPy's .npz and .npy, HDF5."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels.data.decode import MOST_CHANNELS
from fewlabels.data.form import STRETCHED_BY, Form, Preparation, stretch_of, stretched
from fewlabels.data.listing import Listing, listing_of
from fewlabels.data.source import UNLABELLED, evenly_spaced

ARRAYS = (".npz", ".npy", ".h5", ".hdf5")
LARGEST = 64 * 2**30
"""Bytes of all arrays of a .npz file, unpacked."""
TOO_LARGE = "more than fits into memory. Save it as image files and a table."
NAMES = {
    "": (("images", "labels"), ("x", "y")),
    "train": (("train_images", "train_labels"), ("x_train", "y_train"), ("val_images", "val_labels")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
"""By split, what arrays of images and of their labels may be called: as NumPy's users, MedMNIST and Keras have it."""
KNOWN = {"class_names", "groups", *(name for pairs in NAMES.values() for pair in pairs for name in pair)}


def arrays_listed(file: Path, size: int | None = None) -> tuple[np.ndarray, Listing, Preparation]:
    """uint8 [N, C, H, W], a listing of their rows, and what was done with the pixels: as :func:`arrays_read`.

    Raises:
        InputError: if a size was asked for, as well.
    """
    refuse_size(file, size)
    whole, listing = arrays_read(file)
    eight_bits, preparation = in_eight_bits(whole)
    return eight_bits, listing, preparation


def refuse_size(file: Path, size: int | None) -> None:
    """Arrays are taken as they are.

    Raises:
        InputError: if a size was asked for.
    """
    if size is not None:
        raise InputError(f"{file}: arrays are taken in their own size. Leave out --size.")


def arrays_read(file: Path) -> tuple[np.ndarray, Listing]:
    """Numbers [N, C, H, W] as they are, and a listing of their rows.

    Args:
        file: a .npy file of images; or with ``images`` [N, H, W], [N, C, H, W] or [N, H, W, C] of any number type and,
            if there are, ``labels`` [N] (integers, -1 for none, or text), ``class_names`` and ``groups``; or with such
            arrays for training and test, called as MedMNIST or Keras call them.

    Raises:
        InputError: if an array is missing or does not fit.
    """
    arrays = _read(file)
    images, labels, splits = [], [], []
    for split, pairs in NAMES.items():
        for of_images, of_labels in pairs:
            if of_images in arrays:
                part = as_images(arrays[of_images], f"{file}, {of_images}")
                images.append(part)
                labels += _as_labels(arrays.get(of_labels), len(part), f"{file}, {of_labels}")
                splits += [split] * len(part)
    if not images:
        raise InputError(f"{file}: no array 'images'; found {', '.join(arrays) or 'none'}. Save images and labels.")
    if len({(part.shape[1:], part.dtype) for part in images}) > 1:
        raise InputError(f"{file}: images of training and test differ in shape or type. Save them alike.")
    whole = images[0] if len(images) == 1 else np.concatenate(images)  # no copy where none is needed
    groups = [str(group) for group in arrays["groups"].tolist()] if "groups" in arrays else [""] * len(whole)
    if len(groups) != len(whole):
        raise InputError(f"{file}: {len(whole)} images but {len(groups)} groups. Give every image one.")
    names = [f"row {row}" for row in range(len(whole))]
    return whole, listing_of(file, names, _named(labels, arrays.get("class_names"), file), splits, groups)


def in_eight_bits(whole: np.ndarray) -> tuple[np.ndarray, Preparation]:
    """uint8 [N, C, H, W] of numbers [N, C, H, W], and what was done."""
    _, channels, height, width = whole.shape
    if whole.dtype == np.uint8:
        return whole, Preparation(Form(channels, height, width, "uint8"))
    stretch = stretch_of(whole[evenly_spaced(whole, STRETCHED_BY)].astype(np.float32))
    dtype = "uint16" if whole.dtype == np.uint16 else "float32"
    return stretched(whole, stretch), Preparation(Form(channels, height, width, dtype), stretch)


def _read(file: Path) -> Mapping[str, np.ndarray]:
    suffix = file.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return _read_hdf5(file)
    try:
        if suffix == ".npy":
            return {"images": np.load(file, allow_pickle=False)}
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > LARGEST:
            raise InputError(f"{file}: {unpacked / 2**30:.0f} GiB unpacked. Save it as image files and a table.")
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{file}: {TOO_LARGE}") from None
    except Exception:  # numpy parses headers as Python, and fails in as many ways
        writer = "numpy.savez" if suffix == ".npz" else "numpy.save"
        raise InputError(f"{file}: not a whole {suffix} file of numbers. Write it with {writer}.") from None


def _read_hdf5(file: Path) -> Mapping[str, np.ndarray]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError(f"{file}: needs h5py. Run: pip install 'fewlabels[hdf5]', or save it as .npz.") from None
    try:
        with h5py.File(file, "r") as opened:
            return {
                name: _plain(np.asarray(item[()])) if name in KNOWN else np.empty(0)  # which nobody asks for
                for name, item in opened.items()
                if isinstance(item, h5py.Dataset)
            }
    except MemoryError:
        raise InputError(f"{file}: {TOO_LARGE}") from None
    except (OSError, RuntimeError, TypeError, ValueError):
        raise InputError(f"{file}: not a whole HDF5 file. Write it again.") from None


def _plain(array: np.ndarray) -> np.ndarray:
    """Text as text: HDF5 keeps it as bytes."""
    if array.dtype.kind in "SO":
        return np.array([each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()])
    return array


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """[N, C, H, W] of numbers; ``where`` says whose they are.

    Raises:
        InputError: if they are none.
    """
    if array.dtype.kind not in "buif" or array.ndim not in (3, 4) or min(array.shape) < 1:
        raise InputError(f"{where}: {array.dtype} {array.shape}, not numbers [N, H, W], [N, C, H, W] or [N, H, W, C].")
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] > 4 and (array.shape[3] in (1, 3, 4) or array.shape[1] == array.shape[2] > array.shape[3]):
        array = array.transpose(0, 3, 1, 2)
    if array.shape[1] > MOST_CHANNELS:
        raise InputError(f"{where}: {array.shape[1]} channels, more than {MOST_CHANNELS}. Are the axes in order?")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))[0])
        raise InputError(f"{where}, row {row}: pixels that are not finite. Replace them.")
    return np.ascontiguousarray(array)


def _as_labels(array: np.ndarray | None, number: int, where: str) -> list[str]:
    """As words; empty where there is none."""
    if array is None:
        return [""] * number
    if array.size != number:
        raise InputError(f"{where}: {array.size} labels for {number} images. Give every image one; -1 means none.")
    if array.dtype.kind not in "iuUb" and not (array.dtype.kind == "f" and (array == np.round(array)).all()):
        raise InputError(f"{where}: labels of {array.dtype}, not integers or text. Save them as integers.")
    if array.dtype.kind in "iufb":
        array = array.astype(np.int64)
    return ["" if each == UNLABELLED else str(each) for each in array.ravel().tolist()]


def _named(labels: list[str], class_names: np.ndarray | None, file: Path) -> list[str]:
    if class_names is None:
        return labels
    names = [str(name) for name in class_names.ravel().tolist()]
    for row, label in enumerate(labels):
        if label and not (label.isdecimal() and int(label) < len(names)):
            raise InputError(f"{file}, row {row}: label {label} is not one of 0..{len(names) - 1}. Fix it.")
    return [names[int(label)] if label else "" for label in labels]
