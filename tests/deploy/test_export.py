"""Exported files against the classifier itself, on real images."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.backbones.classifier import MIRRORED, SHIFTED, Classifier
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import save_classifier
from fewlabels.data.form import Form, Preparation, stretched
from fewlabels.data.source import ArraySource
from fewlabels.deploy.export import ABOUT, Shipped, _noise, exported
from fewlabels.metrics.classification import probabilities

onnxruntime = pytest.importorskip("onnxruntime")

GRAY = Preparation(Form(1, 28, 28, "uint8"))
NAMES = ("T-shirt | top", "ü", "c")


def trained(backbone: str, test_views: int = 0, channels: int = 1, hidden: int = 0) -> Classifier:
    """With running statistics and logits as training leaves them, not those of a fresh network."""
    model = Classifier(backbone, NAMES, channels, seed=1, hidden=hidden)
    model.test_views = test_views
    drawn = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=drawn)
            module.running_var.uniform_(0.5, 2, generator=drawn)
    with torch.no_grad():
        last = model.head[-1] if hidden else model.head
        last.weight.normal_(0, 0.05, generator=drawn)
    return model.eval()


def session_of(content: bytes | Path):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def by_predict(model: Classifier, pixels: np.ndarray) -> np.ndarray:
    """As ``fewlabels predict`` computes it."""
    return probabilities(outputs(model, ArraySource(pixels, None, ())))


def agrees(model: Classifier, session, images: np.ndarray) -> None:
    """On seven images and on one."""
    expected = by_predict(model, images)
    assert expected.max(axis=1).min() > 0.34  # not all alike
    assert np.ptp(expected, axis=0).max() > 0.05
    for batch in (1, 7):
        said = session.run(["probabilities"], {"images": images[:batch]})[0]
        assert (said.dtype, said.shape) == (np.float32, (batch, 3))
        np.testing.assert_allclose(said, expected[:batch], atol=1e-4)


@pytest.mark.parametrize(("backbone", "views"), [("article", SHIFTED), ("small", MIRRORED)])
def test_onnx_has_the_test_time_views_in_its_graph(backbone, views, fmnist):
    model = trained(backbone, views)
    content, difference = exported(model, GRAY, "onnx")
    assert difference < 1e-5
    images = fmnist.test.read(slice(7)).numpy()
    agrees(model, session_of(content), images)
    seen = by_predict(model, images)
    model.test_views = 0
    assert np.abs(by_predict(model, images) - seen).max() > 1e-3


@pytest.mark.parametrize(("test_views", "hidden"), [(0, 16), (SHIFTED, 0)])
def test_a_program_of_torch_says_what_the_classifier_says(test_views, hidden, fmnist):
    model = trained("article", test_views, hidden=hidden)
    content, _ = exported(model, GRAY, "torch")
    about = {ABOUT: ""}
    program = torch.export.load(io.BytesIO(content), extra_files=about)
    images = fmnist.test.read(slice(7))
    for batch in (1, 7):
        said = program.module()(images[:batch])
        torch.testing.assert_close(said.numpy(), by_predict(model, images[:batch].numpy()), atol=1e-6, rtol=0)
    assert json.loads(json.loads(about[ABOUT])["class_names"]) == list(NAMES)


@pytest.mark.parametrize(("kind", "dtype"), [("onnx", "uint16"), ("onnx", "float32"), ("torch", "uint16")])
def test_precise_pixels_are_stretched_in_the_graph(kind, dtype, fmnist):
    """Two channels of different range, some of it beyond the ends, at a size that the pooling does not divide."""
    stretch = ((500.0, 30000.0), (100.5, 2000.25))
    model = trained("small", channels=2)
    preparation = Preparation(Form(2, 40, 36, dtype), stretch)
    gray = np.pad(fmnist.test.read(slice(7)).numpy(), ((0, 0), (0, 0), (6, 6), (4, 4)), mode="edge").astype(float)
    raw = np.concatenate([gray * 257 / 2, gray * 10], axis=1).astype(dtype)
    assert (raw < 100).any()
    assert (raw[:, 1] > 2001).any()
    content, _ = exported(model, preparation, kind)
    expected = by_predict(model, stretched(raw, stretch))
    if kind == "onnx":
        said = session_of(content).run(None, {"images": raw})[0]
    else:
        said = torch.export.load(io.BytesIO(content)).module()(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(said, expected, atol=1e-4)


def test_the_stretch_is_that_of_the_data_bit_for_bit():
    stretch = ((500.0, 30000.0), (100.5, 2000.25))
    preparation = Preparation(Form(2, 40, 36, "uint16"), stretch)
    raw = _noise(preparation, 20)
    seen = []
    shipped = Shipped(trained("small", channels=2), preparation).eval()
    shipped.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    shipped(torch.from_numpy(raw))
    expected = torch.from_numpy(stretched(raw, stretch)).float() / 255
    assert torch.equal(seen[0], expected)
    assert expected.min() == 0
    assert expected.max() == 1


def test_the_command_writes_a_file_that_says_what_it_is(run_cli, fmnist, tmp_path: Path):
    model = trained("article")
    model.thresholds = {"0.95": 0.8}
    save_classifier(model, tmp_path / "model.safetensors")
    ran = run_cli("export", tmp_path / "model.safetensors", "--to", "onnx", "--out", tmp_path / "out" / "it.onnx")
    assert ran.code == 0, ran.err
    assert "Takes uint8 [N, 1, 28, 28], gives probabilities [N, 3]" in ran.out.replace("\n", " ")
    assert ran.out.endswith(f"Exported: {tmp_path}/out/it.onnx\n")
    session = session_of(tmp_path / "out" / "it.onnx")
    agrees(model, session, fmnist.test.read(slice(7)).numpy())
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(NAMES)
    assert Preparation.of_json(about["preparation"]) == GRAY
    assert json.loads(about["thresholds"]) == {"0.95": 0.8}
    assert json.loads(about["versions"])["torch"]
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [1, 28, 28])
    assert isinstance(taken.shape[0], str)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["it.onnx"]
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "out" / "it.onnx").read_bytes()
    # Without --out it stands beside the model.
    assert run_cli("export", tmp_path / "model.safetensors", "--to", "torch").code == 0
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "model.pt2").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--to", "coreml"), "--to coreml: no such choice. Choose one of onnx, torch."),
        (("--out", "{model}"), "does not end in .onnx"),
        (("--to", "torch", "--out", "it.onnx"), "--out it.onnx: does not end in .pt2"),
    ],
)
def test_mistakes_are_one_line(options, words, run_cli, tmp_path: Path):
    model = tmp_path / "model.safetensors"
    save_classifier(trained("article"), model)
    before = model.read_bytes()
    ran = run_cli("export", model, *(option.format(model=model) for option in options))
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert words in ran.err
    assert model.read_bytes() == before


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_packages_it_says_how_to_get_them(package, run_cli, monkeypatch, tmp_path: Path):
    save_classifier(trained("article"), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, package, None)
    ran = run_cli("export", tmp_path / "model.safetensors")
    assert ran.code == 2
    assert ran.err == f"fewlabels: --to onnx: {package} is not installed. Run: pip install 'fewlabels[onnx]'\n"


def test_a_file_that_would_say_something_else_is_not_given(run_cli, monkeypatch, tmp_path: Path):
    save_classifier(trained("article"), tmp_path / "model.safetensors")
    monkeypatch.setattr("fewlabels.deploy.export._asked_of_pt2", lambda content, images: np.full((3, 3), 1 / 3))
    ran = run_cli("export", tmp_path / "model.safetensors", "--to", "torch")
    assert ran.code == 2
    assert "backbone article: the exported file differs from the model by" in ran.err
    assert not (tmp_path / "model.pt2").exists()


def test_a_backbone_that_cannot_be_exported_is_one_line(run_cli, monkeypatch, tmp_path: Path):
    save_classifier(trained("article"), tmp_path / "model.safetensors")

    def depends_on_values(self, x):
        return self._of_one_view(x) if x.sum() > 0 else self._of_one_view(-x)

    monkeypatch.setattr(Classifier, "forward", depends_on_values)  # which no graph can hold
    ran = run_cli("export", tmp_path / "model.safetensors", "--to", "torch")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "backbone article: cannot be exported to torch (" in ran.err
