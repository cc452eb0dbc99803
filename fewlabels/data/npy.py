"""A .npy file larger than memory: only the images of one batch are ever in it."""

from pathlib import Path

import numpy as np
import torch

from fewlabels._internal.errors import InputError
from fewlabels.data.source import UNLABELLED, Indices


class NpySource:
    """An unlabelled :class:`~fewlabels.data.source.ImageSource` over a .npy file.

    Args:
        path: uint8 [N, H, W] or [N, C, H, W], as ``numpy.save`` writes it.

    Raises:
        InputError: if the file is missing, torn, or of another type or shape.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file. Pass fashion-mnist or a .npy file of uint8 images.")
        try:
            whole = np.lib.format.open_memmap(path, mode="r")
        except PermissionError:
            raise InputError(f"{path}: may not be read. Ask its owner, or copy it.") from None
        except Exception:  # numpy parses the header as Python, and fails in as many ways
            raise InputError(f"{path}: not a whole .npy file of numbers. Write it with numpy.save.") from None
        if whole.dtype != np.uint8:
            raise InputError(f"{path}: pixels are {whole.dtype}, not uint8. Convert them to 0..255 first.")
        if whole.ndim not in (3, 4) or min(whole.shape) < 1:
            raise InputError(f"{path}: shape {whole.shape} is not [N, H, W] or [N, C, H, W].")
        if whole.ndim == 4 and whole.shape[3] in (1, 3, 4) and whole.shape[1] > 4:
            raise InputError(f"{path}: shape {whole.shape} has its channels last. Save images.transpose(0, 3, 1, 2).")
        if not whole.flags.c_contiguous:
            raise InputError(f"{path}: stored in Fortran order. Save numpy.ascontiguousarray(images) instead.")
        self.path = path
        self.name = str(path)
        self.class_names: tuple[str, ...] = ()
        self._offset = int(whole.offset)
        self._stored = whole.shape

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
        """The images at these positions, uint8 [B, C, H, W]."""
        rows = np.arange(*indices.indices(len(self))) if isinstance(indices, slice) else np.asarray(indices)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"{self.path}: rows {rows.min()} to {rows.max()} of {len(self)}")
        images = np.empty((len(rows), *self.shape), dtype=np.uint8)
        # Read, not mapped: a map's pages count as this process's memory, and a file cut short would kill it.
        with self.path.open("rb", buffering=0) as file:
            for image, row in zip(images, rows.tolist(), strict=True):
                file.seek(self._offset + row * image.nbytes)
                if file.readinto(image.data.cast("B")) < image.nbytes:
                    raise InputError(f"{self.path}: ends before row {row}; it was cut while in use. Restore the file.")
        return torch.from_numpy(images)
