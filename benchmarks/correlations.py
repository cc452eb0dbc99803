"""Rank correlation (Spearman's rho) between label-free scores and linear probes, with its interval."""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 2000
"""Resamples of the bootstrap. Not tuned."""


class Correlation(NamedTuple):
    """Spearman's rho over a number of runs, with its 95% bootstrap interval over runs."""

    rho: float
    low: float
    high: float
    runs: int


def correlation(rows: list[dict[str, Any]], score: str, within_methods: bool) -> Correlation:
    """Return the rank correlation of a score with the macro-F1 of the probe.

    Args:
        rows: of ``scores.json``, one per run.
        score: its name.
        within_methods: True: runs are ranked among those of their method and group, and ranks are centred there, so
            that differences between methods do not count. Runs are resampled within method and group.
    """
    values = np.array([[row["scores"][score], row["probe_macro_f1"]] for row in rows])
    keys = [(row["group"], row["method"]) if within_methods else () for row in rows]
    groups = [np.array([index for index, other in enumerate(keys) if other == key]) for key in sorted(set(keys))]
    groups = [group for group in groups if len(group) > 2]
    rng = np.random.default_rng(0)
    resamples = [[rng.choice(group, len(group)) for group in groups] for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(_rho(values, list(map(np.stack, zip(*resamples, strict=True)))), [2.5, 97.5])
    (rho,) = _rho(values, [group[None] for group in groups])
    return Correlation(float(rho), float(low), float(high), sum(map(len, groups)))


def _rho(values: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """Return rho, float [R], of values [N, 2], with R resamples of rows for each group: int64 [R, M]."""
    centred = []
    for group in groups:
        ranks = rankdata(values[group], axis=1)
        centred.append(ranks - ranks.mean(axis=1, keepdims=True))
    x, y = np.moveaxis(np.concatenate(centred, axis=1), 2, 0)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    rho: np.ndarray = (x * y).sum(axis=1) / np.where(scale > 0, scale, np.nan)
    return rho
