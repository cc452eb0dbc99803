"""Tensors on disk as safetensors: nothing a user hands us is ever unpickled."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewlabels._internal.errors import InputError
from fewlabels._internal.files import write_bytes


def weights_bytes(module: nn.Module, about: dict[str, str]) -> bytes:
    """A module's state as the content of a safetensors file; ``about`` says what it is."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    return save(tensors, metadata=about)


def save_weights(module: nn.Module, path: Path, about: dict[str, str]) -> None:
    """Write a module's state whole; ``about`` says what it is."""
    write_bytes(path, weights_bytes(module, about))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and what it says of itself.

    Raises:
        InputError: if the file is missing, torn or of another format.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file. Train one with: fewlabels fit fashion-mnist --out FOLDER")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise InputError(f"{path}: not a whole safetensors file. Pass the .safetensors that fewlabels wrote.") from None


def load_exactly(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load every tensor of a module, no more and no fewer, shapes checked.

    Raises:
        InputError: naming the first tensor that does not fit.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        wanted = tuple(own[name].shape) if name in own else "absent"
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if wanted != found:
            raise InputError(
                f"{path}: weights of another architecture ({name} is {found}, this network needs {wanted}). "
                "Pass weights that were trained with the same backbone, on images of as many channels."
            )
    module.load_state_dict(tensors, strict=True)
