"""Rank correlations: over all runs against scipy, within methods against values computed by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.correlations import correlation


def make_rows(methods: str, scores, probes) -> list[dict]:
    return [
        {"group": "short", "method": method, "scores": {"s": score}, "probe_macro_f1": probe}
        for method, score, probe in zip(methods, scores, probes, strict=True)
    ]


def test_correlation_over_all_runs_equals_scipys_spearmanr():
    rng = np.random.default_rng(0)
    scores, probes = rng.normal(size=30), rng.normal(size=30)
    found = correlation(make_rows("a" * 30, scores, probes + scores), "s", within_methods=False)
    assert found.rho == pytest.approx(spearmanr(scores, probes + scores).statistic)
    assert found.low < found.rho < found.high
    assert found.runs == 30


def test_correlation_within_methods_ignores_differences_between_methods():
    runs = make_rows("aaabbb", [1, 2, 3, 11, 12, 13], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert correlation(runs, "s", within_methods=True).rho == pytest.approx(-1)
    runs = make_rows("aaabbb", [1, 2, 3, 11, 12, 13], [0.7, 0.8, 0.9, 0.4, 0.5, 0.6])
    assert correlation(runs, "s", within_methods=True).rho == pytest.approx(1)
    assert correlation(runs, "s", within_methods=False).rho < 0
