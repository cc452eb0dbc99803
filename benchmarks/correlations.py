"""How well label-free scores order runs as their probes do: Spearman's rho with its interval."""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 2000


class Correlation(NamedTuple):
    """Rho over so many runs, with the middle 95% of its bootstrap over runs."""

    rho: float
    low: float
    high: float
    runs: int


def correlation(rows: list[dict[str, Any]], score: str, within_methods: bool) -> Correlation:
    """Of a score with the probe's macro-F1.

    Within methods: each run's ranks are those among runs of its method and group, less their mean, so that differences
    between methods count for nothing. Runs are drawn again within their method.
    """
    values = np.array([[row["scores"][score], row["probe_macro_f1"]] for row in rows])
    of = [(row["group"], row["method"]) if within_methods else () for row in rows]
    places = [np.array([place for place, other in enumerate(of) if other == each]) for each in sorted(set(of))]
    places = [each for each in places if len(each) > 2]
    drawn = np.random.default_rng(0)
    again = [[drawn.choice(each, len(each)) for each in places] for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(_rho(values, list(map(np.stack, zip(*again, strict=True)))), [2.5, 97.5])
    (rho,) = _rho(values, [each[None] for each in places])
    return Correlation(float(rho), float(low), float(high), sum(map(len, places)))


def _rho(values: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """Float [R] of values [N, 2], whose rows are drawn R times for each group: int64 [R, M]."""
    centred = []
    for group in groups:
        ranks = rankdata(values[group], axis=1)
        centred.append(ranks - ranks.mean(axis=1, keepdims=True))
    x, y = np.moveaxis(np.concatenate(centred, axis=1), 2, 0)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    rho: np.ndarray = (x * y).sum(axis=1) / np.where(scale > 0, scale, np.nan)
    return rho
