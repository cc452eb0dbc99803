import pytest

from benchmarks.worth import labels_needed

CURVE = {100: 0.7, 1000: 0.8, 10_000: 0.79, 60_000: 0.9}


@pytest.mark.parametrize(
    ("macro_f1", "labels"),
    [(0.6, 100), (0.7, 100), (0.75, 316.23), (0.8, 1000), (0.845, 24_494.9), (0.9, 60_000), (0.95, float("inf"))],
)
def test_labels_needed_interpolates_in_the_logarithm_of_labels(macro_f1, labels):
    assert labels_needed(CURVE, macro_f1) == pytest.approx(labels, rel=1e-4)
