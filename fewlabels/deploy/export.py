"""A finished classifier as one file that needs no fewlabels: from raw pixels to probabilities."""

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
from fewlabels.data.form import Preparation, stretched
from fewlabels.data.source import ArraySource
from fewlabels.metrics.classification import probabilities

Kind = Literal["onnx", "torch"]
SUFFIXES: dict[Kind, str] = {"onnx": ".onnx", "torch": ".pt2"}
ONNX_NEEDS = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "probabilities"
ABOUT = "about.json"
"""What a .pt2 file says of itself."""
TOLERANCE = 1e-4
"""By how much a probability of the file may differ from the classifier's."""


class Shipped(nn.Module):
    """A classifier with what comes before and after it: raw pixels [N, C, H, W] to probabilities float32 [N, K].

    Args:
        classifier: copied; its test-time views, if it has them, come along.
        preparation: pixels are uint8, uint16 or float32, as its form says, and are stretched as it says.
    """

    low: Tensor
    span: Tensor

    def __init__(self, classifier: Classifier, preparation: Preparation) -> None:
        super().__init__()
        self.test_views = classifier.test_views
        self.network = deepcopy(classifier).eval().requires_grad_(False)
        self.network.test_views = 0
        self.stretches = preparation.stretch is not None
        low, high = torch.tensor(preparation.stretch or [(0, 255)], dtype=torch.float32)[..., None, None].unbind(1)
        self.register_buffer("low", low.clone())
        self.register_buffer("span", (high - low).clamp(min=1e-12))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        if self.stretches:  # as fewlabels.data.form.stretched
            pixels = (255 * ((pixels - self.low) / self.span).clamp(0, 1)).round()
        logits: Tensor = self._logits(pixels / 255)
        return logits.softmax(dim=1)

    def _logits(self, x: Tensor) -> Tensor:
        """As the classifier's, but of all views at once, so that the graph has the network only once."""
        if not self.test_views:
            logits: Tensor = self.network(x)
            return logits
        views = torch.stack(list(shifted_and_mirrored(x, self.test_views)))
        logits = self.network(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        return logits.mean(dim=0)


def exported(classifier: Classifier, preparation: Preparation, kind: Kind) -> tuple[bytes, float]:
    """The content of a file that does what the classifier does, and the largest difference found between both.

    Both are asked of noise before the content is given.

    Args:
        classifier: on the CPU.
        preparation: the classifier's.
        kind: ``onnx``, or ``torch`` for a program of ``torch.export``.

    Raises:
        InputError: if a package for it is missing, the backbone cannot be exported, or the file would say something
            else than the classifier.
    """
    for package in ONNX_NEEDS if kind == "onnx" else ():
        if find_spec(package) is None:
            raise InputError(f"--to onnx: {package} is not installed. Run: pip install 'fewlabels[onnx]'")
    shipped = Shipped(classifier, preparation).eval()
    images = _noise(preparation)
    try:
        with _quietly():
            program = _program(shipped, images)
            about = _about(classifier, preparation)
            content = _onnx(program, about) if kind == "onnx" else _pt2(program, about)
            found = (_asked_of_onnx if kind == "onnx" else _asked_of_pt2)(content, images)
    except Exception as error:  # exporters fail in as many ways as there are networks
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"backbone {classifier.backbone_name}: cannot be exported to {kind} ({why}). Try another --to, or use the "
            "model itself, with: fewlabels serve"
        ) from error
    difference = float(np.abs(found - _asked(classifier, preparation, images)).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"backbone {classifier.backbone_name}: the exported file differs from the model by {difference:.1e}, more "
            f"than {TOLERANCE:g}. Use the model itself, with: fewlabels serve"
        )
    return content, difference


@contextmanager
def _quietly() -> Iterator[None]:
    """What exporters print, warn of and log is for those who write them; an exception says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _noise(preparation: Preparation, number: int = 3) -> np.ndarray:
    """Raw pixels between the ends of the stretch and a little beyond: [3, C, H, W] of the form's type."""
    form = preparation.form
    ends = np.array(preparation.stretch or [(0, 255)] * form.channels)
    low, high = (ends[:, end, None, None] for end in (0, 1))
    shares = np.random.default_rng(0).uniform(-0.1, 1.1, (number, *form.shape))
    pixels = low + shares * (high - low)
    if form.dtype != "float32":
        pixels = pixels.clip(0, np.iinfo(form.dtype).max).round()
    noise: np.ndarray = pixels.astype(form.dtype)
    return noise


def _program(shipped: Shipped, images: np.ndarray) -> ExportedProgram:
    shapes = {INPUT: {0: Dim("batch", min=1)}}
    program = torch.export.export(shipped, (torch.from_numpy(images),), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


def _about(classifier: Classifier, preparation: Preparation) -> dict[str, str]:
    """What whoever has the file alone needs to know; each value but the backbone is JSON."""
    return {
        "class_names": json.dumps(classifier.class_names),
        "preparation": preparation.as_json(),
        "thresholds": json.dumps(classifier.thresholds),
        "test_views": json.dumps(classifier.test_views),
        "backbone": classifier.backbone_name,
        "versions": json.dumps(versions()),
    }


def _onnx(program: ExportedProgram, about: dict[str, str]) -> bytes:
    made = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    assert made is not None  # only the older exporter gives nothing
    made.model.metadata_props.update(about)
    content: bytes = made.model_proto.SerializeToString()
    return content


def _pt2(program: ExportedProgram, about: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()


def _asked(classifier: Classifier, preparation: Preparation, images: np.ndarray) -> np.ndarray:
    """Probabilities [N, K], as ``fewlabels predict`` has them."""
    pixels = images if preparation.stretch is None else stretched(images, preparation.stretch)
    return probabilities(outputs(classifier, ArraySource(pixels, None, ())))


def _asked_of_onnx(content: bytes, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    said: np.ndarray = session.run([OUTPUT], {INPUT: images})[0]
    return said


def _asked_of_pt2(content: bytes, images: np.ndarray) -> np.ndarray:
    said: np.ndarray = torch.export.load(io.BytesIO(content)).module()(torch.from_numpy(images)).numpy()
    return said
