"""The estimator: scikit-learn's own checks, and real images."""

import pickle
import re
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import check_random_state, estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewlabels._internal.errors import InputError
from fewlabels.augment.recipes import fit_views
from fewlabels.backbones.inference import outputs
from fewlabels.backbones.weights import load_classifier, save_classifier
from fewlabels.data.source import ArraySource
from fewlabels.fit.config import FitConfig
from fewlabels.fit.costs import counted_costs
from fewlabels.fit.data import LabeledPool
from fewlabels.fit.pipeline import run_fit
from fewlabels.sklearn import FewLabelsClassifier
from fewlabels.training.callbacks import Observer

TINY = FewLabelsClassifier("supervised", budget=0.01)
"""One step of each training."""
NOT_FOR_US = {
    "check_classifiers_classes": "ends with the labels -1 and 1; it lets scikit-learn's own semi-supervised "
    "estimators, for which -1 is no label either, off by their names"
}
MORE = (
    "check_dataframe_column_names_consistency",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
)
"""Checks of scikit-learn that hold its own estimators alone to account."""


@pytest.mark.slow
@parametrize_with_checks([TINY], expected_failed_checks=lambda estimator: NOT_FOR_US)
def test_scikit_learns_checks(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else one is skipped
    check(estimator)


@pytest.mark.parametrize("name", MORE)
def test_more_of_scikit_learns_checks(name):
    getattr(estimator_checks, name)("FewLabelsClassifier", TINY)


def test_what_is_let_off_fails_for_its_reason_alone():
    estimator_checks.check_classifiers_classes("LabelSpreading", TINY)  # a name that it lets off
    with pytest.raises(InputError, match="Only one class is labelled"):
        clone(TINY).fit(np.eye(10), [-1, 1] * 5)


@pytest.fixture(scope="module")
def few(fmnist):
    """400 images, 100 of them labelled, and 500 to test on."""
    images, labels = fmnist.train.images[:400, 0], fmnist.train.labels[:400].copy()
    labels[100:] = -1
    return images, labels, fmnist.test.images[:500, 0], fmnist.test.labels[:500]


@pytest.fixture(scope="module")
def fitted(few):
    X, y, _, _ = few
    return FewLabelsClassifier(budget=12, random_state=0).fit(X, y)


def test_it_learns_from_few_labels(few, fitted):
    _, _, X, y = few
    assert fitted.score(X, y) > 0.65
    assert fitted.score(X, y) == accuracy_score(y, fitted.predict(X))
    said = fitted.predict_proba(X)
    assert said.shape == (500, 10)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    assert {"supervised", "kernel", "label-spreading"} <= fitted.result_.candidates.keys()


def test_it_is_the_fit_of_the_command(few, tmp_path: Path):
    X, y, test, _ = few
    fitted = FewLabelsClassifier("supervised", budget=np.float32(0.5), random_state=5).fit(X, y)
    source = ArraySource(X, y, [str(name) for name in range(10)])
    config = FitConfig("supervised", 0.5, "article")
    seed, costs = int(check_random_state(5).randint(2**31 - 1)), counted_costs(config, (1, 28, 28))
    pool = LabeledPool.from_source(source)
    again = run_fit(pool, config, fit_views(1), tmp_path, seed, Observer, costs=costs)
    expected = outputs(again.network, ArraySource(test, None, source.class_names)).argmax(axis=1)
    assert (fitted.predict(test) == expected).all()


def test_random_state_and_nothing_else_decides(few, monkeypatch):
    X, y, test, _ = few
    monkeypatch.setattr("fewlabels.fit.pipeline.measured_costs", pytest.fail)  # no clock
    estimator = FewLabelsClassifier("kernel", budget=8, random_state=1)
    said = estimator.fit(X, y).predict_proba(test)
    torch.manual_seed(3)
    assert (estimator.fit(X, y).predict_proba(test) == said).all()
    assert (clone(estimator).set_params(random_state=2).fit(X, y).predict_proba(test) != said).any()


def test_it_leaves_no_trace(few, capsys, monkeypatch, tmp_path: Path):
    X, y, _, _ = few
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state, before = torch.get_rng_state(), X.copy()
    clone(TINY).set_params(random_state=0).fit(X, y)
    assert list(tmp_path.iterdir()) == []
    assert "".join(capsys.readouterr()) == ""
    assert (torch.get_rng_state() == state).all()
    assert np.array_equal(X, before)


def test_verbose_says_why(few, capsys):
    X, y, _, _ = few
    fitted = clone(TINY).set_params(verbose=True).fit(X, y)
    shown = capsys.readouterr().out
    assert all(line in shown for line in fitted.result_.messages)


LAYOUTS = {
    "[N, D]": lambda X: X.reshape(len(X), -1),
    "[N, 1, H, W]": lambda X: X[:, None],
    "[N, H, W, 1]": lambda X: X[..., None],
    "a list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_of_gray_images(layout, few):
    X, y, test = few[0][:100], few[1][:100], few[2][:20]
    estimator = clone(TINY).set_params(random_state=0)
    expected = estimator.fit(X.astype(int) if layout is LAYOUTS["a list"] else X, y).predict_proba(test)
    estimator = clone(estimator).fit(layout(X), y)
    assert (estimator.predict_proba(layout(test)) == expected).all()
    assert estimator.result_.network.preprocessing.form.shape == (1, 28, 28)


def test_layouts_of_colour_images():
    X = np.random.default_rng(0).integers(0, 256, (40, 3, 12, 9), dtype=np.uint8)
    y = np.arange(40) % 2
    estimator = clone(TINY).set_params(random_state=0)
    said = estimator.fit(X, y).predict_proba(X)
    turned = np.moveaxis(X, 1, 3)
    assert (estimator.fit(turned, y).predict_proba(turned) == said).all()
    assert estimator.result_.network.backbone_name == "small"


@pytest.mark.parametrize("columns, shape", [(10, (1, 1, 10)), (16, (1, 8, 8)), (2, (1, 3, 6)), (1, (1, 5, 5))])
def test_tables_that_are_no_images(columns, shape):
    fitted = clone(TINY).fit(np.random.default_rng(0).normal(size=(20, columns)), np.arange(20) % 2)
    assert fitted.result_.network.preprocessing.form.shape == shape


def test_other_numbers_are_stretched_as_in_the_fit(few):
    X, y, test = *few[:2], few[2][:20]
    of_bytes = clone(TINY).set_params(random_state=0).fit(X[:100], y[:100])
    of_floats = clone(TINY).set_params(random_state=0).fit(X[:100] / 64 - 1.0, y[:100])
    ((low, high),) = of_floats.result_.network.preprocessing.pixel_range
    assert (low, high) == (-1, pytest.approx(255 / 64 - 1, abs=0.2))
    # One image says the same alone, whatever its own darkest and brightest pixels are.
    alone = np.concatenate([of_floats.predict_proba(image[None] / 64 - 1.0) for image in test[:20]])
    np.testing.assert_allclose(alone, of_floats.predict_proba(test[:20] / 64 - 1.0), atol=1e-5)
    # What was learned from bytes takes the same numbers of another type for the same pixels.
    assert (of_bytes.predict_proba(test.astype(float)) == of_bytes.predict_proba(test)).all()


@pytest.mark.parametrize("none, dtype", [("", str), (-1, str), (-1, object), ("", object)])
def test_labels_of_text(none, dtype, few):
    X, y, test = *few[:2], few[2][:20]
    names = np.array(["T-shirt", *"bcdefghi", "ankle boot"])
    words = [none if number == -1 else names[number] for number in y]
    fitted = clone(TINY).set_params(random_state=0).fit(X, np.array(words, dtype=dtype))
    assert fitted.classes_.tolist() == sorted(names)
    assert set(fitted.predict(test)) <= set(names)
    assert fitted.result_.network.class_names == tuple(sorted(names))


def test_supervised_training_does_not_depend_on_unlabelled_images(few):
    X, y, test = *few[:2], few[2][:20]
    estimator = clone(TINY).set_params(random_state=0)
    assert (estimator.fit(X, y).predict_proba(test) == estimator.fit(X[:100], y[:100]).predict_proba(test)).all()


@pytest.mark.parametrize("through", [pickle, joblib])
def test_it_comes_back_from_a_file(through, few, fitted, tmp_path: Path):
    _, _, X, _ = few
    file = tmp_path / "fitted"
    if through is pickle:
        file.write_bytes(pickle.dumps(fitted))
        again = pickle.loads(file.read_bytes())
    else:
        joblib.dump(fitted, file)
        again = joblib.load(file)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (again.transform(X) == fitted.transform(X)).all()
    assert again.result_.messages == fitted.result_.messages


def test_its_network_is_a_model_of_the_command(few, fitted, tmp_path: Path):
    _, _, X, _ = few
    save_classifier(fitted.result_.network, tmp_path / "model.safetensors")
    network = load_classifier(tmp_path / "model.safetensors")
    assert network.preprocessing == fitted.result_.network.preprocessing
    said = outputs(network, ArraySource(X, None, network.class_names)).argmax(axis=1)
    assert (np.array(network.class_names)[said] == fitted.predict(X).astype(str)).all()


def test_a_clone_has_the_settings_and_nothing_learned(few, fitted):
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "result_")


def test_embeddings_feed_a_pipeline(few, fmnist):
    X, y, test, labels = few
    estimator = FewLabelsClassifier("supervised", budget=1, random_state=0)
    pipeline = make_pipeline(estimator, LogisticRegression(max_iter=1000)).fit(X[:100], y[:100])
    embedded = pipeline[0].transform(test)
    assert (embedded.shape, embedded.dtype) == ((500, 2048), np.float32)
    np.testing.assert_allclose(
        embedded, outputs(pipeline[0].result_.network.backbone, fmnist.test.subset(slice(500))), atol=1e-6
    )
    assert pipeline.score(test, labels) > 0.5


def test_cross_validation_and_search(few):
    X, y, _, _ = few
    X, y = X[:100], y[:100]
    alone = Pipeline([("fewlabels", FewLabelsClassifier("supervised", budget=2.0, random_state=0))])
    scores = cross_val_score(alone, X, y, cv=2)
    assert scores.mean() > 0.3
    search = GridSearchCV(alone, {"fewlabels__budget": [0.01, 2.0]}, cv=2).fit(X, y)
    assert search.best_params_ == {"fewlabels__budget": 2.0}
    assert search.cv_results_["mean_test_score"][1] == scores.mean()  # the same again
    assert search.predict(X[:3]).shape == (3,)


def test_counted_costs_are_the_operations_of_the_backbone():
    convolutions = 14 * 14 * 32 * 9 + 7 * 7 * 64 * 32 * 9 + 4 * 4 * 128 * 64 * 9
    costs = counted_costs(FitConfig(backbone="article", teacher_backbone="article"), (1, 28, 28))
    forward = 2 * convolutions / 80e9
    assert not costs.clock
    assert costs.predict_image == pytest.approx(forward)
    assert costs.supervised_step == pytest.approx(0.01 + 64 * 3 * forward)
    assert costs.self_training_step == pytest.approx(0.01 + (256 * 3 + 192) * forward)
    assert costs.student_step(512) == pytest.approx(0.01 + 512 * 3 * forward)


SCALES = {
    "bytes, then 0..1": (lambda X: X, lambda X: X / 255),
    "0..1, then bytes": (lambda X: X / 255, lambda X: X),
    "0..1, then 0..255 as floats": (lambda X: X / 255, lambda X: X.astype(float)),
    "16 bits, then 0..1": (lambda X: X.astype(np.uint16) * 257, lambda X: X / 255),
}


@pytest.mark.parametrize("of_fit, of_predict", SCALES.values(), ids=SCALES)
def test_pixels_on_another_scale_than_in_fit_are_refused(of_fit, of_predict, few):
    X, y, test = few[0][:100], few[1][:100], few[2][:20]
    fitted = clone(TINY).fit(of_fit(X), y)
    with pytest.raises(ValueError, match="Pass pixels on the same scale"):
        fitted.predict(of_predict(test))
    assert fitted.predict(of_fit(test)).shape == (20,)


def test_dark_images_on_the_same_scale_are_accepted(few):
    X, y, test = few[0][:100], few[1][:100], few[2][:20]
    fitted = clone(TINY).fit(X, y)
    assert fitted.predict(np.minimum(test, 1)).shape == (20,)
    assert fitted.predict(np.zeros_like(test)).shape == (20,)


def test_device_that_is_not_there_is_refused(few):
    X, y, _, _ = few
    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ValueError, match=f"device {absent}: not available here"):
        clone(TINY).set_params(device=absent).fit(X, y)
    assert clone(TINY).set_params(device="cpu").fit(X[:100], y[:100]).predict(X[:1]).shape == (1,)


WRONG = {
    "another shape": (lambda X: X[:, :27], "X has 27 features"),
    "another width": (lambda X: X[:, :, :27], r"images of shape \(28, 27\), those of the fit had \(28, 28\)"),
    "other axes": (lambda X: X.reshape(len(X), -1), "X has 784 features"),
    "one image": (lambda X: X[0, 0], "Reshape your data"),
}


@pytest.mark.parametrize("spoil, words", WRONG.values(), ids=WRONG)
def test_images_unlike_those_of_the_fit(spoil, words, few, fitted):
    with pytest.raises(ValueError, match=words):
        fitted.predict(spoil(few[2]))


def test_mistakes_in_a_fit(few):
    X, y, _, _ = few
    with pytest.raises(ValueError, match="No class is labelled"):
        clone(TINY).fit(X, np.full(len(X), -1))
    with pytest.raises(ValueError, match="No class is labelled"):
        clone(TINY).fit(X, np.full(len(X), "", dtype=object))
    with pytest.raises(ValueError, match=r"not numbers \[N, H, W\]"):
        clone(TINY).fit(X[:, None, None], y)
    with pytest.raises(ValueError, match="Did you mean selftrain"):
        FewLabelsClassifier("selftrian").fit(X, y)
    with pytest.raises(ValueError, match="budget 0 s"):
        FewLabelsClassifier(budget=0).fit(X, y)
    with pytest.raises(ValueError, match="images of 27x28 pixels: backbone article takes 28x28"):
        FewLabelsClassifier(backbone="article").fit(X[:, :27], y)
    with pytest.raises(ValueError, match="no such model file"):
        FewLabelsClassifier("probe", start_from="nowhere.safetensors").fit(X, y)


def test_the_page_shows_what_runs(capsys, monkeypatch, tmp_path: Path):
    page = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    code = code.replace("budget=60", "budget=12").replace("3000", "400")
    exec(re.sub(r"data\.test\.(\w+)", r"data.test.\1[:99]", code), {})
    assert (tmp_path / "model.safetensors").is_file()
    assert "Estimate(macro_f1=0." in capsys.readouterr().out
