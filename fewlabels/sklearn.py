"""``fewlabels fit`` as an estimator of scikit-learn."""

import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fewlabels._internal.errors import InputError
from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.architectures import default_backbone
from fewlabels.backbones.inference import outputs
from fewlabels.data.arrays import as_images, in_eight_bits
from fewlabels.data.preprocessing import rescale_pixels
from fewlabels.data.source import UNLABELLED, ArraySource
from fewlabels.fit.config import FitConfig
from fewlabels.fit.costs import counted_costs
from fewlabels.fit.data import LabeledPool
from fewlabels.fit.pipeline import run_fit
from fewlabels.metrics.classification import probabilities
from fewlabels.training.callbacks import Observer
from fewlabels.training.precision import available_device

EIGHT_BITS = (0.0, 255.0)
MAX_RATIO = 16.0
"""Of the largest pixel to that of the fit, beyond which they are on different scales. 0..1 and 0..255 are 255 apart."""
NO_LABEL = (UNLABELLED, str(UNLABELLED), "")
"""What stands for no label; numpy makes text of all where one is text."""


class FewLabelsClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The best classifier that a few labels can buy.

    The work is planned by counting operations, never by a clock: with an integer as ``random_state`` a second fit on
    the same machine gives the same classifier.

    Args:
        strategy: ``auto``, ``supervised``, ``probe``, ``finetune``, ``kernel``, ``label-spreading`` or ``selftrain``;
            the last three need 200 images without a label.
        budget: work, in seconds of about one core of a current processor; more cores take less time.
        backbone: ``article`` (28x28 pixels), ``small``, ``resnet18``, ``resnet50`` or ``timm/NAME``; None: ``article``
            if it suits, else ``small``.
        start_from: a pretraining's backbone.safetensors, which ``probe`` and ``finetune`` need.
        random_state: None, an integer or a ``numpy.random.RandomState``: weights, order, views and folds.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto`` for a GPU where there is one.
        verbose: whether progress and decisions are shown.

    Attributes:
        classes_: [K], sorted.
        result_: a :class:`~fewlabels.fit.pipeline.FitResult`: the network, the strategy that was shipped, the expected
            macro-F1 and the decisions. :func:`~fewlabels.backbones.weights.save_classifier` writes the network.
        n_features_in_: ``X.shape[1]``.
        feature_names_in_: the columns, where X was a data frame.
    """

    def __init__(
        self,
        strategy: str = "auto",
        *,
        budget: float = 600.0,
        backbone: str | None = None,
        start_from: str | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.strategy = strategy
        self.budget = budget
        self.backbone = backbone
        self.start_from = start_from
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "FewLabelsClassifier":
        """Learn from all images and the labels that there are.

        Args:
            X: numbers [N, H, W], [N, C, H, W] or [N, H, W, C]; or [N, D]: gray images, square if D is a square number,
                else of one row. uint8 is taken as it is; of other types, percentiles of each channel become 0 and 255.
            y: labels [N], numbers or text; -1, and among text an empty one, stands for no label.

        Raises:
            ValueError: if X or y is not that, or fewer than two classes have labels.
        """
        X, y = validate_data(self, X, y, allow_nd=True)
        known = np.all([y != none for none in NO_LABEL], axis=0)
        if known.any():
            check_classification_targets(y[known])
        self.classes_, numbers = np.unique(y[known], return_inverse=True)
        labels = np.full(len(y), UNLABELLED)
        labels[known] = numbers
        pixels, preprocessing = in_eight_bits(_as_images(X))
        pool = LabeledPool.from_source(ArraySource(pixels, labels, [str(name) for name in self.classes_], "X"))
        shape, start_from = pool.source.shape, None if self.start_from is None else str(self.start_from)
        backbone = default_backbone(self.backbone, shape)
        config = FitConfig(self.strategy, float(self.budget), backbone, init_from=start_from)  # type: ignore[arg-type]
        observer = partial(Observer, console=Console(quiet=not self.verbose, markup=False))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        device = available_device(self.device)
        # What else is drawn in this process shall not depend on a fit.
        with torch.random.fork_rng(devices=[]), TemporaryDirectory(prefix="fewlabels-") as folder:
            costs = counted_costs(config, shape)
            self.result_ = run_fit(pool, config, fit_views(shape[0]), Path(folder), seed, observer, device, costs=costs)
        self.result_.network.preprocessing = preprocessing
        self._shape, self._range = X.shape[1:], pixel_statistics(X)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each image, [N]."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Calibrated probabilities, float32 [N, K]; columns are in the order of ``classes_``."""
        source = self._source(X)
        return probabilities(outputs(self.result_.network, source))

    def transform(self, X: Any) -> np.ndarray:
        """What the network's backbone makes of each image, float32 [N, F]."""
        source = self._source(X)
        return outputs(self.result_.network.backbone, source)

    def _source(self, X: Any) -> ArraySource:
        """Images, their pixels treated as those of the fit."""
        check_is_fitted(self, "result_")
        X = validate_data(self, X, reset=False, allow_nd=True)
        if X.shape[1:] != self._shape:
            raise InputError(f"X: images of shape {X.shape[1:]}, those of the fit had {self._shape}. Pass such images.")
        refuse_other_range(X, self._range)
        images, network = _as_images(X), self.result_.network
        assert network.preprocessing is not None  # given by the fit
        pixel_range = network.preprocessing.pixel_range
        if pixel_range is not None or images.dtype != np.uint8:
            images = rescale_pixels(images, pixel_range or (EIGHT_BITS,) * images.shape[1])
        return ArraySource(images, None, network.class_names, "X")

    @property
    def _n_features_out(self) -> int:
        return int(self.result_.network.backbone.num_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        # scikit-learn's checks measure it on two coordinates; an image and its mirror image are the same here.
        tags.classifier_tags.poor_score = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _as_images(X: np.ndarray) -> np.ndarray:
    """[N, C, H, W]; pixels of tiny images are repeated."""
    if X.ndim == 2:
        side = math.isqrt(X.shape[1])
        X = X.reshape(len(X), side, side) if side**2 == X.shape[1] else X[:, None]
    images = as_images(X, "X")
    times = -(-FitConfig.min_image_side // max(images.shape[2:]))
    return images if times == 1 else images.repeat(times, axis=2).repeat(times, axis=3)


class PixelStatistics(NamedTuple):
    """The type and range of the pixels that a classifier was fitted to."""

    dtype: str
    low: float
    high: float


def pixel_statistics(X: np.ndarray) -> PixelStatistics:
    """Of the pixels of some images, any shape."""
    return PixelStatistics(X.dtype.name, float(X.min()), float(X.max()))


def refuse_other_range(X: np.ndarray, fitted: PixelStatistics) -> None:
    """Refuse pixels that are clearly on another scale than those of the fit, such as 0 to 1 instead of 0 to 255.

    Raises:
        InputError: if the largest absolute value is more than ``MAX_RATIO`` times that of the fit; or less than that
            part of it, and at most 1, unless both are integers of one type: images may be dark.
    """
    largest, before = float(np.abs(X).max(initial=0)), max(abs(fitted.low), abs(fitted.high))
    if not largest or not before:
        return
    may_be_dark = X.dtype.kind in "bui" and X.dtype.name == fitted.dtype
    scaled_down = largest <= 1 and largest * MAX_RATIO < before and not may_be_dark
    if scaled_down or largest > MAX_RATIO * before:
        raise InputError(
            f"X: {X.dtype.name} pixels from {X.min():g} to {X.max():g}; the classifier was fitted to {fitted.dtype} "
            f"pixels from {fitted.low:g} to {fitted.high:g}. Pass pixels on the same scale."
        )
