"""Fits of some hundred real images, and what stands in for their slow parts."""

from pathlib import Path

from fewlabels.augment.recipes import fit_views
from fewlabels.data.source import balanced_indices
from fewlabels.fit import fit
from fewlabels.fit.cross_fit import RARE, CrossFitted
from fewlabels.fit.fit import Fit, Fitted
from fewlabels.fit.pool import Pool
from fewlabels.fit.settings import FitSettings
from fewlabels.training.callbacks import Observer

STEPS = {"supervised": 50, "finetune": 10, "selftrain": 30, "student": 120}
"""Of each training, with the fixture ``short``."""


def pool_of(fmnist, labels: int = 100, images: int = 400) -> Pool:
    few = fmnist.train.first_k(images)
    return Pool.of(few.hiding_all_but(balanced_indices(few.labels, labels, 0)))


def fitted(pool: Pool, folder: Path, seed: int = 0, **settings) -> Fitted:
    wanted = FitSettings(**{"budget": 30.0, "teacher": "article", **settings})
    return Fit(pool, wanted, fit_views(1), folder, seed, Observer).go()


def untrained(arm, pool, part, seconds):
    return arm.lab.fresh("article", pool, part).eval()


def later_is_better(monkeypatch) -> None:
    """What is tried last is taken, whatever it gives; the baseline never, though its training comes after others."""
    tried: list[CrossFitted] = []

    def score(self, fitted) -> float:
        if fitted.weights.keys() == {"supervised", RARE}:
            return -0.1
        if not any(fitted is before for before in tried):
            tried.append(fitted)
        return 0.1 * next(place for place, before in enumerate(tried) if before is fitted)

    monkeypatch.setattr(Fit, "_score", score)


def takes(now: list[float], seconds: float, of):
    """The function, for which a false clock goes on."""

    def taking(*args):
        now[0] += seconds
        return of(*args)

    return taking


def are_scored(monkeypatch, **scores: float) -> None:
    """Each so on the folds, a committee 0.9."""

    def score(self, fitted) -> float:
        names = fitted.weights.keys() - {RARE}
        return 0.9 if len(names) > 1 else scores[names.pop()]

    monkeypatch.setattr(Fit, "_score", score)


def takes_all_its_time(now: list[float], given: dict[str, float]):
    """A training that takes what it is given, and learns nothing."""

    def train(arm, pool, part, seconds):
        now[0] += seconds
        given.setdefault(f"{arm.name}-{part}", seconds)  # asked again, it is read from its file
        return untrained(arm, pool, part, seconds)

    return train


def any_student_is_taken(monkeypatch) -> None:
    """However little of its teachers it has learned."""
    monkeypatch.setattr(Fit, "_right", lambda self, fitted: 0.0)


def all_are_heard(monkeypatch) -> None:
    """Experts without a say are asked, too."""
    monkeypatch.setattr(fit, "heard", lambda weights: [name for name in weights if name != RARE])
