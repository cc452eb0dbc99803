import pytest

from benchmarks.scale import FEATURE_BYTES, least_seconds, peak_gib
from fewlabels.compare.plan import TRAINING, CompareSettings
from fewlabels.features.extractor import Features, kept


def test_features_are_as_large_as_is_said(fmnist):
    assert Features(fmnist.train.first_k(300), None).vectors.nbytes == 300 * kept(300) * FEATURE_BYTES


def test_memory_is_on_the_line_through_what_was_measured():
    measured = [{"images": 100, "peak_mib": 1024}, {"images": 300, "peak_mib": 2048}]
    assert [peak_gib(measured, images) for images in (100, 200, 500)] == pytest.approx([1, 1.5, 3])


def test_workers_share_the_work_but_not_a_pair():
    settings = CompareSettings(pairs=6, budget=1200)
    assert least_seconds(settings, 1) == pytest.approx(TRAINING * 1200)
    assert least_seconds(settings, 2) == pytest.approx(TRAINING * 600)
    assert least_seconds(settings, 100) == settings.seconds("pretrain") + settings.seconds("fit")
