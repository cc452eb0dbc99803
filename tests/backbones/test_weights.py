from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import read_weights
from fewlabels.backbones.architectures import ArticleBackbone, make_backbone
from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier
from fewlabels.backbones.weights import load_backbone, load_classifier, save_backbone, save_classifier


def same_weights(first, second) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_load_classifier_restores_weights_and_metadata(tmp_path: Path):
    model = Classifier("article", ["a", "<script>", "ü"], seed=3)
    model.test_views = MIRRORED
    save_classifier(model, tmp_path / "model.safetensors")
    loaded = load_classifier(tmp_path / "model.safetensors")
    assert same_weights(model, loaded)
    assert loaded.class_names == ("a", "<script>", "ü")
    assert not loaded.training
    assert loaded.test_views == MIRRORED


def test_load_classifier_reads_test_views_of_older_files(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_classifier(Classifier("article", ["a"]), path)
    tensors, about = read_weights(path)
    save_file(tensors, path, {**about, "test_views": "1"})
    assert load_classifier(path).test_views == SHIFTED


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_load_backbone_reads_backbones_and_classifiers(tmp_path: Path, kind):
    trained = Classifier("article", ["a"], seed=1)
    path = tmp_path / "weights.safetensors"
    if kind == "backbone":
        save_backbone(trained.backbone, path, "article")
    else:
        save_classifier(trained, path)
    model = Classifier("article", ["a", "b"], seed=2)
    load_backbone(model, path)
    assert same_weights(model.backbone, trained.backbone)


def test_load_backbone_refuses_other_shapes(tmp_path: Path):
    save_backbone(ArticleBackbone(channels=3), tmp_path / "rgb.safetensors", "article")
    with pytest.raises(InputError, match=r"another architecture \(0.weight is \(32, 3, 3, 3\)"):
        load_backbone(Classifier("article", ["a"]), tmp_path / "rgb.safetensors")


def test_load_backbone_names_the_backbone_of_the_file(tmp_path: Path):
    save_backbone(make_backbone("resnet18", 1), tmp_path / "mine.safetensors", "resnet18")
    with pytest.raises(InputError, match=r"weights of resnet18, not of article\. Choose backbone resnet18"):
        load_backbone(Classifier("article", ["a"]), tmp_path / "mine.safetensors")


def test_load_classifier_never_unpickles(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"weights": Bomb()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_classifier(tmp_path / "model.safetensors")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"kind": "backbone"},
        {"kind": "classifier", "backbone": "article", "channels": "many", "class_names": "[]", "hidden": "0"},
        {"kind": "classifier", "backbone": "article", "channels": "1", "class_names": "{", "hidden": "0"},
        {"kind": "classifier", "backbone": "article", "channels": "99999999999", "class_names": '["a"]', "hidden": "0"},
        {"kind": "classifier", "backbone": "article", "channels": "1", "class_names": '["a"]', "hidden": "-1"},
        {"kind": "classifier", "backbone": "none", "channels": "1", "class_names": '["a"]', "hidden": "0"},
        {"kind": "classifier", "backbone": "article", "channels": "1", "class_names": '["a"]', "hidden": "0"},
    ],
)
def test_load_classifier_refuses_wrong_metadata(tmp_path: Path, about):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata=about)
    with pytest.raises(InputError):
        load_classifier(tmp_path / "model.safetensors")
