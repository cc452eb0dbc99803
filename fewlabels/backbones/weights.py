"""Backbones and classifiers in safetensors files; no file is ever unpickled."""

import json
from pathlib import Path

import torch
from torch import nn

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import load_exactly, read_weights, save_weights
from fewlabels.backbones.architectures import BACKBONES
from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier
from fewlabels.data.preprocessing import ImageSpec, Preprocessing


def save_backbone(backbone: nn.Module, path: Path, name: str) -> None:
    """Write a backbone to a safetensors file."""
    save_weights(backbone, path, {"kind": "backbone", "backbone": name})


def load_backbone(model: Classifier, path: Path) -> None:
    """Load weights into a classifier's backbone, from a file of a backbone or of a classifier.

    Raises:
        InputError: if the file is of another architecture.
    """
    tensors, about = read_weights(path)
    refuse_other_backbone(about, model.backbone_name, path)
    if about.get("kind") == "classifier":
        tensors = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    load_exactly(model.backbone, tensors, path)


def refuse_other_backbone(about: dict[str, str], name: str, path: Path) -> None:
    """Refuse a file with weights of another backbone, according to its metadata.

    Raises:
        InputError: naming both backbones.
    """
    if (found := about.get("backbone", name)) != name:
        raise InputError(f"{path}: weights of {found}, not of {name}. Choose backbone {found}.")


def save_classifier(model: Classifier, path: Path) -> None:
    """Write a classifier with its metadata to a safetensors file, for :func:`load_classifier`."""
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
    if model.preprocessing is not None:
        about["preparation"] = model.preprocessing.as_json()
    save_weights(model, path, about)


def load_classifier(path: Path) -> Classifier:
    """Read a classifier from a file, in evaluation mode.

    Raises:
        InputError: if the file is missing or damaged, is no classifier, or has an unknown architecture.
    """
    tensors, about = read_weights(path)
    if about.get("kind") != "classifier":
        raise InputError(f"{path}: holds no classifier. Pass a model.safetensors written by: fewlabels fit")
    try:
        name, channels, classes = about["backbone"], int(about["channels"]), json.loads(about["class_names"])
        hidden, views = int(about["hidden"]), int(about.get("test_views", "0"))
        views = SHIFTED if views == 1 else views  # 1 in older files, where it means that there are test views
        preprocessing = Preprocessing.from_json(about["preparation"]) if "preparation" in about else None
        thresholds = {str(precision): float(at) for precision, at in json.loads(about.get("thresholds", "{}")).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: its description is damaged. Train the model again with: fewlabels fit") from None
    of_timm = name.startswith("timm/")
    if name not in BACKBONES and not of_timm:
        raise InputError(f"{path}: unknown backbone {name!r}. This version has {', '.join(BACKBONES)}.")
    if not (
        (1 <= channels <= 1024 and (preprocessing is None or preprocessing.form.channels == channels))
        and (0 <= hidden <= 65536 and views in (0, MIRRORED, SHIFTED))
        and (isinstance(classes, list) and 1 <= len(classes) <= 1_000_000)
    ):
        raise InputError(f"{path}: its description is damaged. Train the model again with: fewlabels fit")
    # On the meta device, wrong sizes in the metadata cost no memory. timm needs the CPU: it computes buffers itself.
    with torch.device("cpu" if of_timm else "meta"):
        model = Classifier(name, [str(c) for c in classes], channels, hidden=hidden)
    if not of_timm:
        model = model.to_empty(device="cpu")
    load_exactly(model, tensors, path)
    model.test_views, model.preprocessing, model.thresholds = views, preprocessing, thresholds
    return model.eval()


def preprocessing_of(model: Classifier, path: Path) -> Preprocessing:
    """The preprocessing of images for a classifier from a file.

    Raises:
        InputError: if the file has no preprocessing and the backbone takes any image size.
    """
    if model.preprocessing is not None:
        return model.preprocessing
    size = model.backbone.image_size
    if size is None:
        raise InputError(f"{path}: does not say which image size it takes. Train the model again with: fewlabels fit")
    return Preprocessing(ImageSpec(model.backbone.channels, size, size, "uint8"))
