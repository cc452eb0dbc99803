import pytest

from benchmarks.scale import FEATURE_BYTES, least_seconds, peak_gib
from fewlabels.compare.plan import TRAINING_FRACTION, CompareSettings
from fewlabels.features.extractor import FeatureConfig, Features


@pytest.mark.parametrize("graph", [True, False])
def test_feature_bytes_equal_the_memory_of_the_vectors(fmnist, graph):
    vectors = Features(fmnist.train.first_k(300), graph=graph).vectors
    assert vectors.nbytes == 300 * FeatureConfig().dimensions(graph=graph) * FEATURE_BYTES


def test_peak_gib_is_linear_through_the_measured_sizes():
    measured = [{"images": 100, "peak_mib": 1024}, {"images": 300, "peak_mib": 2048}]
    assert [peak_gib(measured, images) for images in (100, 200, 500)] == pytest.approx([1, 1.5, 3])


def test_least_seconds_divides_trials_but_no_pretraining_and_its_training():
    settings = CompareSettings(pairs=6, budget=1200)
    assert least_seconds(settings, 1) == pytest.approx(TRAINING_FRACTION * 1200)
    assert least_seconds(settings, 2) == pytest.approx(TRAINING_FRACTION * 600)
    assert least_seconds(settings, 100) == settings.seconds("pretrain") + settings.seconds("fit")
