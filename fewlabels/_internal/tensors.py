"""Tensors in safetensors files; no file is ever unpickled."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_bytes


def weights_bytes(module: nn.Module, about: dict[str, str]) -> bytes:
    """Serialise a module's state to the content of a safetensors file, with metadata ``about``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    return save(tensors, metadata=about)


def save_weights(module: nn.Module, path: Path, about: dict[str, str]) -> None:
    """Write a module's state to a safetensors file, atomically, with metadata ``about``."""
    write_bytes(path, weights_bytes(module, about))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises:
        InputError: if the file is missing, incomplete or of another format.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file. Train one with: fewlabels fit fashion-mnist --out FOLDER")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise InputError(f"{path}: not a whole safetensors file. Pass the .safetensors that fewlabels wrote.") from None


def load_exactly(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load the state of a module; names and shapes must be the same.

    Raises:
        InputError: naming the first tensor that does not fit.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        expected = tuple(own[name].shape) if name in own else "absent"
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if expected != found:
            raise InputError(
                f"{path}: weights of another architecture ({name} is {found}, this network needs {expected}). "
                "Pass weights that were trained with the same backbone, on images of as many channels."
            )
    module.load_state_dict(tensors, strict=True)
