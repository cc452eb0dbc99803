"""Read images and labels from one file of arrays: NumPy's .npz and .npy, or HDF5."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewlabels._internal.errors import InputError
from fewlabels.data.decode import MAX_CHANNELS
from fewlabels.data.listing import Listing, make_listing
from fewlabels.data.preprocessing import RANGE_SAMPLE_SIZE, ImageSpec, Preprocessing, percentile_range, rescale_pixels
from fewlabels.data.source import UNLABELLED, evenly_spaced

ARRAY_SUFFIXES = (".npz", ".npy", ".h5", ".hdf5")
"""Suffixes of the files that :func:`read_arrays` reads."""
MAX_UNPACKED_BYTES = 64 * 2**30
"""Unpacked size in bytes above which a .npz file is refused: a safety limit, not tuned."""
TOO_LARGE_MESSAGE = "more than fits into memory. Save it as image files and a table."
"""Error message, after the file's name and a colon."""
ARRAY_NAMES = {
    "": (("images", "labels"), ("x", "y")),
    "train": (("train_images", "train_labels"), ("x_train", "y_train"), ("val_images", "val_labels")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
"""By split: names of image and label arrays. They are those of plain NumPy files, of MedMNIST and of Keras."""
KNOWN_NAMES = {"class_names", "groups", *(name for pairs in ARRAY_NAMES.values() for pair in pairs for name in pair)}
"""Names of all arrays that are read."""


def load_arrays(file: Path, size: int | None = None) -> tuple[np.ndarray, Listing, Preprocessing]:
    """Read a file as :func:`read_arrays` does, with pixels converted to uint8.

    Args:
        file: as for :func:`read_arrays`.
        size: must be None, since arrays are not resized.

    Returns:
        uint8 images [N, C, H, W], a listing of their rows, and the conversion that was applied.

    Raises:
        InputError: if a size is given, or as by :func:`read_arrays`.
    """
    refuse_size(file, size)
    images, listing = read_arrays(file)
    eight_bits, preprocessing = in_eight_bits(images)
    return eight_bits, listing, preprocessing


def refuse_size(file: Path, size: int | None) -> None:
    """Refuse a size, since arrays are not resized.

    Raises:
        InputError: if a size is given.
    """
    if size is not None:
        raise InputError(f"{file}: arrays keep their own size. Leave out --size.")


def read_arrays(file: Path) -> tuple[np.ndarray, Listing]:
    """Read images [N, C, H, W] with their own number type, and a listing of their rows.

    Args:
        file: a .npy file of images; or a file with ``images`` [N, H, W], [N, C, H, W] or [N, H, W, C] of any number
            type and, optionally, ``labels`` [N] (integers, -1 for none, or text), ``class_names`` and ``groups``; or a
            file with such arrays for training and test, named as by MedMNIST or Keras.

    Raises:
        InputError: if there are no images, or an array does not match the images.
    """
    arrays = _read(file)
    images, labels, splits = [], [], []
    for split, pairs in ARRAY_NAMES.items():
        for of_images, of_labels in pairs:
            if of_images in arrays:
                part = as_images(arrays[of_images], f"{file}, {of_images}")
                images.append(part)
                labels += _as_labels(arrays.get(of_labels), len(part), f"{file}, {of_labels}")
                splits += [split] * len(part)
    if not images:
        raise InputError(f"{file}: no array 'images'; found {', '.join(arrays) or 'none'}. Save images and labels.")
    if len({(part.shape[1:], part.dtype) for part in images}) > 1:
        raise InputError(f"{file}: training and test images differ in shape or type. Save them alike.")
    joined = images[0] if len(images) == 1 else np.concatenate(images)  # one array needs no copy
    groups = [str(group) for group in arrays["groups"].tolist()] if "groups" in arrays else [""] * len(joined)
    if len(groups) != len(joined):
        raise InputError(f"{file}: {len(joined)} images but {len(groups)} groups. Give every image one.")
    names = [f"row {row}" for row in range(len(joined))]
    classes = _apply_class_names(labels, arrays.get("class_names"), file)
    return joined, make_listing(file, names, classes, splits, groups)


def in_eight_bits(images: np.ndarray) -> tuple[np.ndarray, Preprocessing]:
    """Convert images [N, C, H, W] of any number type to uint8; also return the conversion.

    uint8 stays unchanged. Other types are rescaled between two percentiles of each channel.
    """
    _, channels, height, width = images.shape
    if images.dtype == np.uint8:
        return images, Preprocessing(ImageSpec(channels, height, width, "uint8"))
    pixel_range = percentile_range(images[evenly_spaced(images, RANGE_SAMPLE_SIZE)].astype(np.float32))
    dtype = "uint16" if images.dtype == np.uint16 else "float32"
    return rescale_pixels(images, pixel_range), Preprocessing(ImageSpec(channels, height, width, dtype), pixel_range)


def _read(file: Path) -> Mapping[str, np.ndarray]:
    suffix = file.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return _read_hdf5(file)
    try:
        if suffix == ".npy":
            return {"images": np.load(file, allow_pickle=False)}
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise InputError(f"{file}: {unpacked / 2**30:.0f} GiB unpacked. Save it as image files and a table.")
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{file}: {TOO_LARGE_MESSAGE}") from None
    except Exception:  # NumPy parses headers as Python code, so a broken file can raise any exception
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
                name: _as_text(np.asarray(item[()])) if name in KNOWN_NAMES else np.empty(0)  # unused, so not read
                for name, item in opened.items()
                if isinstance(item, h5py.Dataset)
            }
    except MemoryError:
        raise InputError(f"{file}: {TOO_LARGE_MESSAGE}") from None
    except (OSError, RuntimeError, TypeError, ValueError):
        raise InputError(f"{file}: not a whole HDF5 file. Write it again.") from None


def _as_text(array: np.ndarray) -> np.ndarray:
    """Decode text, which HDF5 stores as bytes; arrays of numbers are returned unchanged."""
    if array.dtype.kind in "SO":
        return np.array([each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()])
    return array


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """Return images [N, H, W], [N, C, H, W] or [N, H, W, C] as a contiguous array [N, C, H, W].

    Args:
        array: of any number type.
        where: prefix of error messages, such as the name of the file and the array.

    Raises:
        InputError: if the array has another shape or type, too many channels, or numbers that are not finite.
    """
    if array.dtype.kind not in "buif" or array.ndim not in (3, 4) or min(array.shape) < 1:
        raise InputError(f"{where}: {array.dtype} {array.shape}, not numbers [N, H, W], [N, C, H, W] or [N, H, W, C].")
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] > 4 and (array.shape[3] in (1, 3, 4) or array.shape[1] == array.shape[2] > array.shape[3]):
        array = array.transpose(0, 3, 1, 2)
    if array.shape[1] > MAX_CHANNELS:
        raise InputError(f"{where}: {array.shape[1]} channels, more than {MAX_CHANNELS}. Are the axes in order?")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=(1, 2, 3)))[0])
        raise InputError(f"{where}, row {row}: pixels that are not finite. Replace them.")
    return np.ascontiguousarray(array)


def _as_labels(array: np.ndarray | None, number: int, where: str) -> list[str]:
    """Return one label per image as text; an unlabelled image has an empty one."""
    if array is None:
        return [""] * number
    if array.size != number:
        raise InputError(f"{where}: {array.size} labels for {number} images. Give every image one; -1 means none.")
    if array.dtype.kind not in "iuUb" and not (array.dtype.kind == "f" and (array == np.round(array)).all()):
        raise InputError(f"{where}: labels of {array.dtype}, not integers or text. Save them as integers.")
    if array.dtype.kind in "iufb":
        array = array.astype(np.int64)
    return ["" if each == UNLABELLED else str(each) for each in array.ravel().tolist()]


def _apply_class_names(labels: list[str], class_names: np.ndarray | None, file: Path) -> list[str]:
    """Replace numbers by the class names, if the file has them."""
    if class_names is None:
        return labels
    names = [str(name) for name in class_names.ravel().tolist()]
    for row, label in enumerate(labels):
        if label and not (label.isdecimal() and int(label) < len(names)):
            raise InputError(f"{file}, row {row}: label {label} is not one of 0..{len(names) - 1}. Fix it.")
    return [names[int(label)] if label else "" for label in labels]
