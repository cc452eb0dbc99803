"""Export a classifier to a file that runs without fewlabels, from raw pixels to probabilities."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fewlabels._internal.environment import versions
from fewlabels._internal.errors import InputError
from fewlabels.backbones.classifier import Classifier, shifted_and_mirrored
from fewlabels.backbones.inference import outputs
from fewlabels.data.preprocessing import Preprocessing, rescale_pixels
from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import probabilities

Kind = Literal["onnx", "torch"]
SUFFIXES: dict[Kind, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""File suffix by kind."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages that the export to ONNX needs."""
INPUT_NAME, OUTPUT_NAME = "images", "probabilities"
"""Names of the input and the output in an ONNX file."""
METADATA_FILE = "about.json"
"""Name of the extra file with metadata inside a .pt2 file."""
MAX_DIFFERENCE = 1e-4
"""Largest difference allowed between the probabilities of the exported file and those of the classifier."""


class ExportedModule(nn.Module):
    """A classifier with its preprocessing and softmax, from raw pixels [N, C, H, W] to probabilities float32 [N, K].

    Args:
        classifier: it is copied, with its test-time views.
        preprocessing: gives the type of the raw pixels (uint8, uint16 or float32), and the range to rescale from.
    """

    low: Tensor
    span: Tensor

    def __init__(self, classifier: Classifier, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.test_views = classifier.test_views
        self.network = deepcopy(classifier).eval().requires_grad_(False)
        self.network.test_views = 0
        self.rescales = preprocessing.pixel_range is not None
        low, high = torch.tensor(preprocessing.pixel_range or [(0, 255)], dtype=torch.float32)[..., None, None].unbind(
            1
        )
        self.register_buffer("low", low.clone())
        self.register_buffer("span", (high - low).clamp(min=1e-12))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        if self.rescales:  # as fewlabels.data.preprocessing.rescale_pixels
            pixels = (255 * ((pixels - self.low) / self.span).clamp(0, 1)).round()
        logits: Tensor = self._logits(pixels / 255)
        return logits.softmax(dim=1)

    def _logits(self, x: Tensor) -> Tensor:
        """Return the mean logits of the test-time views; one batch has all views, so the graph has the network once."""
        if not self.test_views:
            logits: Tensor = self.network(x)
            return logits
        views = torch.stack(list(shifted_and_mirrored(x, self.test_views)))
        logits = self.network(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        return logits.mean(dim=0)


def export_classifier(classifier: Classifier, preprocessing: Preprocessing, kind: Kind) -> tuple[bytes, float]:
    """Export a classifier, and compare both on random images.

    Args:
        classifier: on the CPU.
        preprocessing: the classifier's.
        kind: ``onnx``, or ``torch`` for a program of ``torch.export``.

    Returns:
        The content of the file, and the largest difference of a probability from the classifier's.

    Raises:
        InputError: if a package is missing, the backbone cannot be exported, or a probability differs by more than
            ``MAX_DIFFERENCE``.
    """
    for package in ONNX_PACKAGES if kind == "onnx" else ():
        if find_spec(package) is None:
            raise InputError(f"--to onnx: {package} is not installed. Run: pip install 'fewlabels[onnx]'")
    module = ExportedModule(classifier, preprocessing).eval()
    images = _random_images(preprocessing)
    try:
        with _silenced():
            program = _program(module, images)
            metadata = _metadata(classifier, preprocessing)
            content = _onnx_bytes(program, metadata) if kind == "onnx" else _pt2_bytes(program, metadata)
            found = (_predict_onnx if kind == "onnx" else _predict_pt2)(content, images)
    except Exception as error:  # exporters raise many types of exceptions
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"backbone {classifier.backbone_name}: cannot be exported to {kind} ({why}). Try another --to, or serve "
            "the model itself with: fewlabels serve"
        ) from error
    difference = float(np.abs(found - _predict(classifier, preprocessing, images)).max())
    if not difference <= MAX_DIFFERENCE:
        raise InputError(
            f"backbone {classifier.backbone_name}: the exported file differs from the model by {difference:.1e}, more "
            f"than {MAX_DIFFERENCE:g}. Serve the model itself with: fewlabels serve"
        )
    return content, difference


@contextmanager
def _silenced() -> Iterator[None]:
    """Inside the block, hide output, warnings and log messages, which exporters write for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _random_images(preprocessing: Preprocessing, number: int = 3) -> np.ndarray:
    """Return random raw pixels [number, C, H, W], within the range to rescale from and a tenth beyond it."""
    form = preprocessing.form
    ends = np.array(preprocessing.pixel_range or [(0, 255)] * form.channels)
    low, high = (ends[:, end, None, None] for end in (0, 1))
    fractions = np.random.default_rng(0).uniform(-0.1, 1.1, (number, *form.shape))
    pixels = low + fractions * (high - low)
    if form.dtype != "float32":
        pixels = pixels.clip(0, np.iinfo(form.dtype).max).round()
    images: np.ndarray = pixels.astype(form.dtype)
    return images


def _program(module: ExportedModule, images: np.ndarray) -> ExportedProgram:
    shapes = {INPUT_NAME: {0: Dim("batch", min=1)}}
    program = torch.export.export(module, (torch.from_numpy(images),), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it contains folders of this machine
    return program


def _metadata(classifier: Classifier, preprocessing: Preprocessing) -> dict[str, str]:
    """Return the metadata of the file; each value except ``backbone`` is JSON."""
    return {
        "class_names": json.dumps(classifier.class_names),
        "preparation": preprocessing.as_json(),
        "thresholds": json.dumps(classifier.thresholds),
        "test_views": json.dumps(classifier.test_views),
        "backbone": classifier.backbone_name,
        "versions": json.dumps(versions()),
    }


def _onnx_bytes(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    exported = torch.onnx.export(
        program, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME], dynamo=True, verbose=False
    )
    assert exported is not None  # with dynamo=True a program is returned
    exported.model.metadata_props.update(metadata)
    content: bytes = exported.model_proto.SerializeToString()
    return content


def _pt2_bytes(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata)})
    return buffer.getvalue()


def _predict(classifier: Classifier, preprocessing: Preprocessing, images: np.ndarray) -> np.ndarray:
    """Return the classifier's probabilities [N, K] for raw pixels, computed as in ``fewlabels predict``."""
    pixels = images if preprocessing.pixel_range is None else rescale_pixels(images, preprocessing.pixel_range)
    return probabilities(outputs(classifier, ArraySource(pixels, None, ())))


def _predict_onnx(content: bytes, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    predicted: np.ndarray = session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
    return predicted


def _predict_pt2(content: bytes, images: np.ndarray) -> np.ndarray:
    program = torch.export.load(io.BytesIO(content)).module()
    predicted: np.ndarray = program(torch.from_numpy(images)).numpy()
    return predicted
