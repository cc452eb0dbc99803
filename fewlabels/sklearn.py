"""``fewlabels fit`` as an estimator of scikit-learn."""

import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fewlabels._internal.errors import InputError
from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.architectures import usual_backbone
from fewlabels.backbones.inference import outputs
from fewlabels.data.arrays import as_images, in_eight_bits
from fewlabels.data.form import stretched
from fewlabels.data.source import UNLABELLED, ArraySource
from fewlabels.fit.fit import Fit
from fewlabels.fit.paces import counted_paces
from fewlabels.fit.pool import Pool
from fewlabels.fit.settings import LEAST_SIDE, FitSettings
from fewlabels.metrics.classification import probabilities
from fewlabels.training.callbacks import Observer

EIGHT_BITS = (0.0, 255.0)
NONE = (UNLABELLED, str(UNLABELLED), "")
"""What stands for no label; numpy makes text of all where one is text."""


class FewLabelsClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The best classifier that a few labels can buy.

    The work is planned by counting operations, never by a clock: with an integer as ``random_state`` a second fit on
    the same machine gives the same classifier.

    Args:
        strategy: ``auto``, ``supervised``, ``probe``, ``finetune``, ``kernel``, ``propagate`` or ``selftrain``; for
            ``kernel`` and ``propagate`` 200 images without a label are needed.
        budget: work for the training, in seconds of about one core of a current processor; more cores take less.
        backbone: ``article`` (28x28 pixels), ``small``, ``resnet18``, ``resnet50`` or ``timm/NAME``; None: ``article``
            if it suits, else ``small``.
        start_from: a pretraining's backbone.safetensors, which ``probe`` and ``finetune`` need.
        random_state: None, an integer or a ``numpy.random.RandomState``: weights, order, views and folds.
        verbose: whether progress and reasons are shown.

    Attributes:
        classes_: [K], sorted.
        fitted_: a :class:`~fewlabels.fit.fit.Fitted`: the network, the strategy that was taken, the macro-F1 that is to
            be expected, and the reasons. :func:`~fewlabels.backbones.weights.save_classifier` writes the network.
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
        verbose: bool = False,
    ) -> None:
        self.strategy = strategy
        self.budget = budget
        self.backbone = backbone
        self.start_from = start_from
        self.random_state = random_state
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
        known = np.all([y != none for none in NONE], axis=0)
        if known.any():
            check_classification_targets(y[known])
        self.classes_, numbers = np.unique(y[known], return_inverse=True)
        labels = np.full(len(y), UNLABELLED)
        labels[known] = numbers
        pixels, preparation = in_eight_bits(_as_images(X))
        pool = Pool.of(ArraySource(pixels, labels, [str(name) for name in self.classes_], "X"))
        shape = pool.source.shape
        start_from = None if self.start_from is None else str(self.start_from)
        backbone = usual_backbone(self.backbone, shape)
        settings = FitSettings(self.strategy, float(self.budget), backbone, start_from=start_from)  # type: ignore[arg-type]
        observer = partial(Observer, console=Console(quiet=not self.verbose, markup=False))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        # What else is drawn in this process shall not depend on a fit.
        with torch.random.fork_rng(devices=[]), TemporaryDirectory(prefix="fewlabels-") as folder:
            paces = counted_paces(backbone, settings.teacher, shape)
            fit = Fit(pool, settings, fit_views(shape[0]), Path(folder), seed, observer, paces=paces)
            self.fitted_ = fit.go()
        self.fitted_.network.preparation = preparation
        self._shape = X.shape[1:]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each image, [N]."""
        said = self.predict_proba(X)
        return np.asarray(self.classes_[said.argmax(axis=1)])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Calibrated probabilities, float32 [N, K]; columns are in the order of ``classes_``."""
        source = self._source(X)
        return probabilities(outputs(self.fitted_.network, source))

    def transform(self, X: Any) -> np.ndarray:
        """What the network's backbone makes of each image, float32 [N, F]."""
        source = self._source(X)
        return outputs(self.fitted_.network.backbone, source)

    def _source(self, X: Any) -> ArraySource:
        """Images, their pixels treated as those of the fit."""
        check_is_fitted(self, "fitted_")
        X = validate_data(self, X, reset=False, allow_nd=True)
        if X.shape[1:] != self._shape:
            raise InputError(f"X: images of shape {X.shape[1:]}, those of the fit had {self._shape}. Pass such images.")
        images, network = _as_images(X), self.fitted_.network
        assert network.preparation is not None  # given by the fit
        stretch = network.preparation.stretch
        if stretch is not None or images.dtype != np.uint8:
            images = stretched(images, stretch or (EIGHT_BITS,) * images.shape[1])
        return ArraySource(images, None, network.class_names, "X")

    @property
    def _n_features_out(self) -> int:
        return int(self.fitted_.network.backbone.num_features)

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
    times = -(-LEAST_SIDE // max(images.shape[2:]))
    return images if times == 1 else images.repeat(times, axis=2).repeat(times, axis=3)
