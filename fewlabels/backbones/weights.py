"""Backbones and classifiers on disk, as safetensors: nothing a user hands us is ever unpickled."""

import json
from pathlib import Path

import torch
from torch import nn

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import load_exactly, read_weights, save_weights
from fewlabels.backbones.architectures import BACKBONES
from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier
from fewlabels.data.form import Form, Preparation


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
