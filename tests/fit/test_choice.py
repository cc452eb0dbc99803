"""Which way is preferred, by what is named right on labels held out."""

import numpy as np
import pytest

from fewlabels.data.source import ArraySource
from fewlabels.fit.choice import heard, preferred
from fewlabels.fit.cross_fit import RARE, CrossFitted
from fewlabels.fit.pool import Pool


def test_an_expert_without_a_say_is_not_asked():
    assert heard({"supervised": 0.4, "kernel": 0.0, RARE: 1.0}) == ["supervised"]


def hundred(errors: range, groups: np.ndarray | None = None) -> CrossFitted:
    """Of 100 held-out images, these are named wrong."""
    source = ArraySource(np.zeros((100, 1, 1, 1), np.uint8), np.arange(100) % 2, ("a", "b"), groups=groups)
    pool = Pool.of(source)
    said = pool.labels.copy()
    said[errors] = 1 - said[errors]
    return CrossFitted(pool, [np.arange(100)], [np.eye(2)[said]])


@pytest.mark.parametrize(("wrong", "first"), [(4, "selftrain"), (24, "committee")])
def test_self_training_is_preferred_within_a_standard_error(wrong, first):
    """The committee names 10 wrong that self-training knows, and that errs in some others."""
    errors = {"supervised": range(50), "committee": range(10), "selftrain": range(10, 20 + wrong)}
    scores = {"supervised": 0.5, "committee": 0.9, "selftrain": 0.9 - wrong / 100}
    assert preferred(scores, {name: hundred(of) for name, of in errors.items()})[0] == first
    assert preferred({"supervised": 0.5, "committee": 0.9}, {})[0] == "committee"


@pytest.mark.parametrize(("score", "first"), [(0.895, "selftrain"), (0.88, "committee")])
def test_two_that_name_the_same_images_right_may_differ_on_another(score, first):
    """Who takes the wrong ones for what decides macro-F1, and is no reason."""
    scores = {"supervised": 0.5, "committee": 0.9, "selftrain": score}
    tried = {"supervised": hundred(range(50)), "committee": hundred(range(10)), "selftrain": hundred(range(10))}
    assert preferred(scores, tried)[0] == first


@pytest.mark.parametrize(("wrong", "first"), [(4, "committee"), (24, "propagate")])
def test_all_experts_are_preferred_to_one_within_a_standard_error(wrong, first):
    """Labels that spread name 10 wrong that all together know, who err in others; the baseline stays the safest."""
    tried = {
        "supervised": hundred(range(50)),
        "propagate": hundred(range(10)),
        "committee": hundred(range(10, 20 + wrong)),
    }
    scores = {"supervised": 0.5, "propagate": 0.9, "committee": 0.9 - wrong / 100}
    assert preferred(scores, tried)[0] == first
    assert preferred({**scores, "supervised": 0.91}, tried)[0] == "supervised"


def test_all_experts_are_near_to_the_best_one_and_self_training_is_not():
    """Each is compared with the best, not with who was put before it."""
    tried = {"supervised": range(50), "kernel": range(10), "committee": range(10, 24), "selftrain": range(24, 42)}
    scores = {name: 1 - len(wrong) / 100 for name, wrong in tried.items()}
    assert scores["committee"] - scores["selftrain"] < 0.05
    held = {name: hundred(wrong) for name, wrong in tried.items()}
    assert preferred(scores, held) == ["committee", "kernel", "selftrain", "supervised"]


def test_where_self_training_is_best_all_experts_are_next():
    tried = {"supervised": range(50), "kernel": range(10), "committee": range(10, 24), "selftrain": range(4)}
    scores = {name: 1 - len(wrong) / 100 for name, wrong in tried.items()}
    held = {name: hundred(wrong) for name, wrong in tried.items()}
    assert preferred(scores, held) == ["selftrain", "committee", "kernel", "supervised"]


@pytest.mark.parametrize("name", ["probe", "finetune"])
@pytest.mark.parametrize(("wrong", "first"), [(10, "supervised"), (8, "pretrained")])
def test_pretrained_weights_have_to_prove_themselves(name, wrong, first):
    """Fresh weights name 20 wrong that the others know; those err in some, so that they differ in 30 or in 28."""
    tried = {"supervised": hundred(range(20)), name: hundred(range(20, 20 + wrong))}
    scores = {"supervised": 0.8, name: 1 - wrong / 100}
    assert preferred(scores, tried)[0] == {"supervised": "supervised", "pretrained": name}[first]
    assert preferred({**scores, "committee": 0.81}, tried)[0] == ("committee" if first == "supervised" else name)


def test_one_image_of_a_rare_class_proves_nothing():
    """A probe names one of its two, which is a quarter of macro-F1."""
    source = ArraySource(np.zeros((100, 1, 1, 1), np.uint8), np.repeat([0, 1], [98, 2]), ("a", "b"))
    pool = Pool.of(source)
    nothing, one = (
        CrossFitted(pool, [np.arange(100)], [np.eye(2)[np.repeat([0, 1], [n, 100 - n])]]) for n in (100, 99)
    )
    assert preferred({"supervised": 0.5, "probe": 0.75}, {"supervised": nothing, "probe": one})[0] == "supervised"


def test_of_patients_they_have_to_prove_themselves_on_each():
    patients = np.arange(100) // 10
    tried = {"supervised": hundred(range(20), patients), "probe": hundred(range(20, 28), patients)}
    assert preferred({"supervised": 0.8, "probe": 0.92}, tried)[0] == "supervised"
