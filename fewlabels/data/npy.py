"""Read batches of images from a .npy file that may be larger than memory."""

from pathlib import Path

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels.data.source import UNLABELLED, Indices


class NpySource:
    """An unlabelled :class:`~fewlabels.data.source.ImageSource` that reads a .npy file batch by batch.

    Args:
        path: uint8 [N, H, W] or [N, C, H, W], as ``numpy.save`` writes it.

    Raises:
        InputError: if the file is missing, truncated, or of another type or shape.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file. Pass fashion-mnist or a .npy file of uint8 images.")
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")
        except PermissionError:
            raise InputError(f"{path}: no permission to read it. Ask its owner, or copy it.") from None
        except Exception:  # NumPy parses the header as Python code, so a broken file can raise any exception
            raise InputError(f"{path}: not a whole .npy file of numbers. Write it with numpy.save.") from None
        if mapped.dtype != np.uint8:
            raise InputError(f"{path}: pixels are {mapped.dtype}, not uint8. Convert them to 0..255 first.")
        if mapped.ndim not in (3, 4) or min(mapped.shape) < 1:
            raise InputError(f"{path}: shape {mapped.shape} is not [N, H, W] or [N, C, H, W].")
        if mapped.ndim == 4 and mapped.shape[3] in (1, 3, 4) and mapped.shape[1] > 4:
            raise InputError(f"{path}: shape {mapped.shape} has its channels last. Save images.transpose(0, 3, 1, 2).")
        if not mapped.flags.c_contiguous:
            raise InputError(f"{path}: stored in Fortran order. Save numpy.ascontiguousarray(images) instead.")
        self.path = path
        self.name = str(path)
        self.class_names: tuple[str, ...] = ()
        self._offset = int(mapped.offset)
        self._stored = mapped.shape

    @property
    def shape(self) -> tuple[int, int, int]:
        *channels, height, width = self._stored[1:]
        return (channels[0] if channels else 1), height, width

    @property
    def labels(self) -> np.ndarray:
        return np.full(len(self), UNLABELLED, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._stored[0])

    def read(self, indices: Indices) -> torch.Tensor:
        """Return the images of these rows, uint8 [B, C, H, W]."""
        rows = np.arange(*indices.indices(len(self))) if isinstance(indices, slice) else np.asarray(indices)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"{self.path}: rows {rows.min()} to {rows.max()} of {len(self)}")
        images = np.empty((len(rows), *self.shape), dtype=np.uint8)
        # Read, not mapped: a map's pages count as memory of this process, and a truncated file would crash it.
        with self.path.open("rb", buffering=0) as file:
            for image, row in zip(images, rows.tolist(), strict=True):
                file.seek(self._offset + row * image.nbytes)
                if file.readinto(image.data.cast("B")) < image.nbytes:
                    raise InputError(f"{self.path}: ends before row {row}; it was cut while in use. Restore the file.")
        return torch.from_numpy(images)
