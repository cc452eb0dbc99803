"""Test that exported files predict what the classifier predicts, on real images."""

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
from fewlabels.data.preprocessing import ImageSpec, Preprocessing, rescale_pixels
from fewlabels.data.source import ArraySource
from fewlabels.deploy.export import METADATA_FILE, ExportedModule, _random_images, export_classifier
from fewlabels.metrics.classification import probabilities

onnxruntime = pytest.importorskip("onnxruntime")

GRAY = Preprocessing(ImageSpec(1, 28, 28, "uint8"))
NAMES = ("T-shirt | top", "ü", "c")


def make_classifier(backbone: str, test_views: int = 0, channels: int = 1, hidden: int = 0) -> Classifier:
    """Return a classifier whose batch statistics and head weights are as varied as after training."""
    model = Classifier(backbone, NAMES, channels, seed=1, hidden=hidden)
    model.test_views = test_views
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    with torch.no_grad():
        layer = model.head[-1] if hidden else model.head
        layer.weight.normal_(0, 0.05, generator=generator)
    return model.eval()


def session_of(content: bytes | Path):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def expected_probabilities(model: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Return the probabilities that ``fewlabels predict`` computes."""
    return probabilities(outputs(model, ArraySource(pixels, None, ())))


def assert_session_agrees(model: Classifier, session, images: np.ndarray) -> None:
    """Compare the probabilities of an ONNX session with the model's, for batches of one and of seven images."""
    expected = expected_probabilities(model, images)
    assert expected.max(axis=1).min() > 0.34  # the classes differ
    assert np.ptp(expected, axis=0).max() > 0.05
    for batch in (1, 7):
        found = session.run(["probabilities"], {"images": images[:batch]})[0]
        assert (found.dtype, found.shape) == (np.float32, (batch, 3))
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4)


@pytest.mark.parametrize(("backbone", "views"), [("article", SHIFTED), ("small", MIRRORED)])
def test_export_to_onnx_includes_test_time_views(backbone, views, fmnist):
    model = make_classifier(backbone, views)
    content, difference = export_classifier(model, GRAY, "onnx")
    assert difference < 1e-5
    images = fmnist.test.read(slice(7)).numpy()
    assert_session_agrees(model, session_of(content), images)
    with_views = expected_probabilities(model, images)
    model.test_views = 0
    assert np.abs(expected_probabilities(model, images) - with_views).max() > 1e-3


@pytest.mark.parametrize(("test_views", "hidden"), [(0, 16), (SHIFTED, 0)])
def test_export_to_torch_predicts_what_the_classifier_predicts(test_views, hidden, fmnist):
    model = make_classifier("article", test_views, hidden=hidden)
    content, _ = export_classifier(model, GRAY, "torch")
    files = {METADATA_FILE: ""}
    program = torch.export.load(io.BytesIO(content), extra_files=files)
    images = fmnist.test.read(slice(7))
    for batch in (1, 7):
        found = program.module()(images[:batch])
        expected = expected_probabilities(model, images[:batch].numpy())
        torch.testing.assert_close(found.numpy(), expected, atol=1e-6, rtol=0)
    assert json.loads(json.loads(files[METADATA_FILE])["class_names"]) == list(NAMES)


@pytest.mark.parametrize(("kind", "dtype"), [("onnx", "uint16"), ("onnx", "float32"), ("torch", "uint16")])
def test_export_rescales_pixels_of_16_and_32_bits(kind, dtype, fmnist):
    """Use two channels of different ranges, values outside of them, and a size that the pooling does not divide."""
    pixel_range = ((500.0, 30000.0), (100.5, 2000.25))
    model = make_classifier("small", channels=2)
    preprocessing = Preprocessing(ImageSpec(2, 40, 36, dtype), pixel_range)
    gray = np.pad(fmnist.test.read(slice(7)).numpy(), ((0, 0), (0, 0), (6, 6), (4, 4)), mode="edge").astype(float)
    raw = np.concatenate([gray * 257 / 2, gray * 10], axis=1).astype(dtype)
    assert (raw < 100).any()
    assert (raw[:, 1] > 2001).any()
    content, _ = export_classifier(model, preprocessing, kind)
    expected = expected_probabilities(model, rescale_pixels(raw, pixel_range))
    if kind == "onnx":
        found = session_of(content).run(None, {"images": raw})[0]
    else:
        found = torch.export.load(io.BytesIO(content)).module()(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_exported_module_rescales_exactly_like_rescale_pixels():
    pixel_range = ((500.0, 30000.0), (100.5, 2000.25))
    preprocessing = Preprocessing(ImageSpec(2, 40, 36, "uint16"), pixel_range)
    raw = _random_images(preprocessing, 20)
    inputs = []
    module = ExportedModule(make_classifier("small", channels=2), preprocessing).eval()
    module.network.register_forward_pre_hook(lambda network, args: inputs.append(args[0]))
    module(torch.from_numpy(raw))
    expected = torch.from_numpy(rescale_pixels(raw, pixel_range)).float() / 255
    assert torch.equal(inputs[0], expected)
    assert expected.min() == 0
    assert expected.max() == 1


def test_export_command_writes_metadata_and_no_local_paths(run_cli, fmnist, tmp_path: Path):
    model = make_classifier("article")
    model.thresholds = {"0.95": 0.8}
    save_classifier(model, tmp_path / "model.safetensors")
    ran = run_cli("export", tmp_path / "model.safetensors", "--to", "onnx", "--out", tmp_path / "out" / "it.onnx")
    assert ran.code == 0, ran.err
    assert "Input: uint8 [N, 1, 28, 28]. Output: probabilities [N, 3]." in ran.out.replace("\n", " ")
    assert ran.out.endswith(f"Exported: {tmp_path}/out/it.onnx\n")
    session = session_of(tmp_path / "out" / "it.onnx")
    assert_session_agrees(model, session, fmnist.test.read(slice(7)).numpy())
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert Preprocessing.from_json(metadata["preparation"]) == GRAY
    assert json.loads(metadata["thresholds"]) == {"0.95": 0.8}
    assert json.loads(metadata["versions"])["torch"]
    (model_input,) = session.get_inputs()
    assert (model_input.name, model_input.type) == ("images", "tensor(uint8)")
    assert isinstance(model_input.shape[0], str)
    assert model_input.shape[1:] == [1, 28, 28]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["it.onnx"]
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "out" / "it.onnx").read_bytes()
    # Without --out the file is written to the model's folder.
    assert run_cli("export", tmp_path / "model.safetensors", "--to", "torch").code == 0
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "model.pt2").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "coreml"), "--to coreml: no such choice. Choose one of onnx, torch."),
        (("--out", "{model}"), "does not end in .onnx"),
        (("--to", "torch", "--out", "it.onnx"), "--out it.onnx: does not end in .pt2"),
    ],
)
def test_export_refuses_wrong_options_in_one_line(options, message, run_cli, tmp_path: Path):
    model = tmp_path / "model.safetensors"
    save_classifier(make_classifier("article"), model)
    before = model.read_bytes()
    ran = run_cli("export", model, *(option.format(model=model) for option in options))
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err
    assert model.read_bytes() == before


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_export_without_a_package_prints_the_install_command(package, run_cli, monkeypatch, tmp_path: Path):
    save_classifier(make_classifier("article"), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, package, None)
    ran = run_cli("export", tmp_path / "model.safetensors")
    assert ran.code == 2
    assert ran.err == f"fewlabels: --to onnx: {package} is not installed. Run: pip install 'fewlabels[onnx]'\n"


def test_export_refuses_a_file_that_predicts_differently(run_cli, monkeypatch, tmp_path: Path):
    save_classifier(make_classifier("article"), tmp_path / "model.safetensors")
    monkeypatch.setattr("fewlabels.deploy.export._predict_pt2", lambda content, images: np.full((3, 3), 1 / 3))
    ran = run_cli("export", tmp_path / "model.safetensors", "--to", "torch")
    assert ran.code == 2
    assert "backbone article: the exported file differs from the model by" in ran.err
    assert not (tmp_path / "model.pt2").exists()


def test_export_refuses_a_backbone_without_a_static_graph_in_one_line(run_cli, monkeypatch, tmp_path: Path):
    save_classifier(make_classifier("article"), tmp_path / "model.safetensors")

    def depends_on_values(self, x):
        return self._of_one_view(x) if x.sum() > 0 else self._of_one_view(-x)

    monkeypatch.setattr(Classifier, "forward", depends_on_values)  # a graph cannot branch on values
    ran = run_cli("export", tmp_path / "model.safetensors", "--to", "torch")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "backbone article: cannot be exported to torch (" in ran.err
