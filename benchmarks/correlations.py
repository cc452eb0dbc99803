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
    again = [_rho(values, [drawn.choice(each, len(each)) for each in places]) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return Correlation(_rho(values, places), float(low), float(high), sum(map(len, places)))


def _rho(values: np.ndarray, groups: list[np.ndarray]) -> float:
    centred = []
    for group in groups:
        ranks = rankdata(values[group], axis=0)
        centred.append(ranks - ranks.mean(axis=0))
    x, y = np.concatenate(centred).T
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale else float("nan")
