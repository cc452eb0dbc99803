"""A comparison in miniature: real images, trainings of a few steps."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fewlabels._internal.files import write_json
from fewlabels.augment.recipes import RECIPES, fit_views
from fewlabels.compare.cells import Bench
from fewlabels.compare.plan import CompareSettings
from fewlabels.fit.arms import SelfTrain
from fewlabels.training.callbacks import Observer
from fewlabels.training.tuning import Choice

SMALL: dict[str, Any] = {"labels": (30,), "pairs": 2, "budget": 600.0, "methods": ("simclr",)}


@pytest.fixture
def bench(fmnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    train, test = fmnist.train.first_k(256), fmnist.test.first_k(80)
    settings = CompareSettings(**SMALL)
    bench = Bench(settings, train, test, RECIPES["gray-small"], fit_views(1), tmp_path / "compare", Observer)
    monkeypatch.setattr(SelfTrain, "fewest", 1)
    slow(bench)
    return bench


def of_one_pair(bench: Bench) -> Bench:
    """Which has as much time for that one as it had for two."""
    settings = replace(bench.settings, pairs=1, budget=bench.settings.budget / bench.settings.pairs)
    bench = replace(bench, settings=settings)
    slow(bench)
    return bench


def slow(bench: Bench, epochs: int = 1) -> None:
    """Note speeds of a machine that does few steps of each training in the time it has.

    Args:
        bench: whose speeds.
        epochs: of a pretraining.
    """
    seconds = round(bench.settings.seconds("pretrain"))
    often = bench.seconds_of("fit") / 8
    paces = {"supervised": bench.seconds_of("supervised") / 3.1, "finetune": bench.seconds_of("finetune") / 3.1}
    paces |= {"selftrain": often, "student": often}
    paces |= dict.fromkeys(("image", "teacher", "features", "kernel"), 0.0)
    speeds: dict[str, Any] = {f"paces of a fit, {bench.computed}": paces}
    quick = {"epochs": epochs, "engine": asdict(Choice(1))}
    speeds |= {f"{method} in {seconds} s, {bench.computed}": quick for method in bench.settings.methods}
    speeds["threads"] = 1
    write_json(bench.folder / "speeds.json", speeds)
