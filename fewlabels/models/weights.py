"""Weights on disk as safetensors: nothing a user hands us is ever unpickled."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewlabels.data.form import Form, Preparation
from fewlabels.errors import InputError
from fewlabels.files import write_bytes
from fewlabels.models.backbones import BACKBONES
from fewlabels.models.classifier import MIRRORED, SHIFTED, Classifier


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


def save_backbone(backbone: nn.Module, path: Path, name: str) -> None:
    """Write a backbone alone, as pretraining makes it."""
    save_weights(backbone, path, {"kind": "backbone", "backbone": name})


def load_backbone(model: Classifier, path: Path) -> None:
    """Load pretrained weights into a classifier's backbone: from a backbone file or another classifier.

    Raises:
        InputError: if the file is of another architecture.
    """
    tensors, about = read_weights(path)
    refuse_other_backbone(about, model.backbone_name, path)
    if about.get("kind") == "classifier":
        tensors = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    load_exactly(model.backbone, tensors, path)


def refuse_other_backbone(about: dict[str, str], name: str, path: Path) -> None:
    """Refuse a file that says it holds another backbone's weights.

    Raises:
        InputError: naming both.
    """
    if (found := about.get("backbone", name)) != name:
        raise InputError(f"{path}: weights of {found}, not of {name}. Choose backbone {found}.")


def save_classifier(model: Classifier, path: Path) -> None:
    """Write a classifier with all that is needed to use it again."""
    about = {
        "kind": "classifier",
        "backbone": model.backbone_name,
        "channels": str(model.backbone.channels),
        "class_names": json.dumps(model.class_names),
        "hidden": str(model.hidden),
        "test_views": str(int(model.test_views)),
    }
    if model.thresholds:
        about["thresholds"] = json.dumps(model.thresholds)
    if model.preparation is not None:
        about["preparation"] = model.preparation.as_json()
    save_weights(model, path, about)


def load_classifier(path: Path) -> Classifier:
    """Read a classifier back, in evaluation mode.

    Raises:
        InputError: if the file is missing, torn, not a classifier or of an unknown architecture.
    """
    tensors, about = read_weights(path)
    if about.get("kind") != "classifier":
        raise InputError(f"{path}: holds no classifier. Pass a model.safetensors written by: fewlabels fit")
    try:
        name, channels, classes = about["backbone"], int(about["channels"]), json.loads(about["class_names"])
        hidden, views = int(about["hidden"]), int(about.get("test_views", "0"))
        views = SHIFTED if views == 1 else views  # files once said no more than that there are some
        preparation = Preparation.of_json(about["preparation"]) if "preparation" in about else None
        thresholds = {str(wanted): float(at) for wanted, at in json.loads(about.get("thresholds", "{}")).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: its description is damaged. Train the model again with: fewlabels fit") from None
    of_timm = name.startswith("timm/")
    if name not in BACKBONES and not of_timm:
        raise InputError(f"{path}: unknown backbone {name!r}. This version knows {', '.join(BACKBONES)}.")
    if not (
        (1 <= channels <= 1024 and (preparation is None or preparation.form.channels == channels))
        and (0 <= hidden <= 65536 and views in (0, MIRRORED, SHIFTED))
        and (isinstance(classes, list) and 1 <= len(classes) <= 1_000_000)
    ):
        raise InputError(f"{path}: its description is damaged. Train the model again with: fewlabels fit")
    # A file's word on sizes costs no memory before its tensors are checked. timm computes buffers that no file holds.
    with torch.device("cpu" if of_timm else "meta"):
        model = Classifier(name, [str(c) for c in classes], channels, hidden=hidden)
    if not of_timm:
        model = model.to_empty(device="cpu")
    load_exactly(model, tensors, path)
    model.test_views, model.preparation, model.thresholds = views, preparation, thresholds
    return model.eval()


def preparation_of(model: Classifier, path: Path) -> Preparation:
    """What is to be done with images before a classifier from this file sees them.

    Raises:
        InputError: if the file does not say and the backbone takes any size.
    """
    if model.preparation is not None:
        return model.preparation
    size = model.backbone.image_size
    if size is None:
        raise InputError(f"{path}: does not say what images it takes. Train the model again with: fewlabels fit")
    return Preparation(Form(model.backbone.channels, size, size, "uint8"))
