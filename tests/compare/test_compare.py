from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import read_weights
from fewlabels.compare.cells import Bench
from fewlabels.compare.plan import Arm, Cell, CompareSettings
from fewlabels.compare.run import compare, plan_lines
from fewlabels.compare.verdict import judged, sentence
from fewlabels.data.source import ArraySource
from fewlabels.metrics.paired_tests import Difference
from tests.compare.conftest import slow


def test_every_arm_is_compared_and_nothing_is_done_twice(bench, monkeypatch):
    found = compare(bench)
    names = ["pixels", "supervised", "untrained-probe", "simclr-probe", "simclr-finetune", "fit"]
    assert [row["arm"] for row in found["arms"]] == names
    assert found["asked"] == "simclr-finetune"
    assert {claim["verdict"] for claim in found["differences"]} == {"cannot tell"}
    assert "With 2 pairs nothing can be claimed: 6 are needed (--pairs 6 --budget " in found["verdict"]
    assert not list((bench.folder / "work").iterdir())
    pixels = next(row for row in found["arms"] if row["arm"] == "pixels")
    assert min(pixels["macro_f1"]) > 0.4

    def trains(*args):
        raise AssertionError("done again")

    monkeypatch.setattr(Bench, "_predicted", trains)
    assert compare(bench) == found


def test_pairs_differ_in_labels_weights_and_pretraining(bench):
    pools = [bench.pool(Cell(Arm("supervised"), 30, pair)) for pair in (0, 1)]
    assert not np.array_equal(pools[0].labelled, pools[1].labelled)
    for start in ("untrained", "simclr"):
        first, second = (read_weights(bench.weights(start, pair))[0] for pair in (0, 1))
        assert not first["0.weight"].equal(second["0.weight"])


def test_what_is_stopped_goes_on_with_the_next_cell(bench, monkeypatch):
    predicted, done = Bench._predicted, []

    def stops(self, cell, work):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(cell)
        return predicted(self, cell, work)

    monkeypatch.setattr(Bench, "_predicted", stops)
    with pytest.raises(KeyboardInterrupt):
        compare(bench)
    cells = list(bench.settings.cells())
    assert done == cells[:2]

    def goes_on(self, cell, work):
        done.append(cell)
        return np.zeros(len(self.test), np.int64)

    monkeypatch.setattr(Bench, "_predicted", goes_on)
    compare(bench)
    assert done == cells


def test_weights_that_do_not_suit_are_refused_before_anything_is_trained(bench):
    own = replace(bench, settings=replace(bench.settings, weights=str(bench.folder / "mine.safetensors")))
    with pytest.raises(InputError, match=r"mine.safetensors: no such model file"):
        compare(own)
    assert [file.name for file in bench.folder.iterdir()] == ["speeds.json"]


def test_a_cell_has_the_threads_that_are_noted_whatever_ran_before(bench, monkeypatch):
    seen = []

    def looks(self, cell, work):
        seen.append((torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())))
        return np.zeros(len(self.test), np.int64)

    monkeypatch.setattr(Bench, "_predicted", looks)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        bench.predictions(Cell(Arm("pixels"), 30, 0))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen[0]) == {bench.threads()} == {1}


def test_what_decides_a_cell_is_in_its_name(bench):
    cell = Cell(Arm("supervised"), 30, 0)
    bench.predictions(cell)
    other = replace(bench, settings=replace(bench.settings, budget=900.0))
    slow(other)
    other.predictions(cell)
    assert len(list((bench.folder / "cells").iterdir())) == 2


def test_the_verdict_by_hand():
    settings = CompareSettings(pairs=6)
    labels = np.arange(600) % 3
    rng = np.random.default_rng(0)

    def predictions(rate: float) -> np.ndarray:
        return np.where(rng.random(600) < rate, labels, (labels + 1) % 3)

    rates = {"mocov2-finetune": 0.9, "supervised": 0.8}
    done = {cell: predictions(rates.get(cell.arm.name, 0.8)) for cell in settings.cells()}
    found = judged(settings, done, labels, 3, labels >= 0)
    claims = {claim["arm"]: claim for claim in found["differences"]}
    assert claims["mocov2-finetune"]["verdict"] == "helps"
    assert claims["mocov2-finetune"]["p_adjusted"] == claims["mocov2-finetune"]["p"] == 2 / 64
    assert claims["pixels"]["p_adjusted"] > claims["pixels"]["p"]
    assert found["verdict"].startswith("Pretraining helps: +")


@pytest.mark.parametrize(
    ("difference", "p", "tests", "said"),
    [
        (Difference(-0.02, -0.03, -0.01, 0.03, 6, 0.01), 0.03, 1, "supervised training alone is better"),
        (Difference(0.001, -0.002, 0.003, 0.5, 6, 0.01), 0.5, 1, "makes no difference"),
        (
            Difference(0.01, -0.01, 0.03, 0.2, 6, 0.01),
            0.2,
            1,
            "with 11 pairs (--pairs 11 --budget 110m)",
        ),
        (
            Difference(0.01, -0.01, 0.03, 0.2, 6, 0.01),
            0.4,
            2,
            "With 6 pairs nothing can be claimed: 7 are needed (--pairs 7",
        ),
        (Difference(0.001, -0.002, 0.003, 0.5, 5, 0.01), 0.5, 1, "With 5 pairs nothing can be claimed"),
    ],
)
def test_what_is_said(difference, p, tests, said):
    assert said in sentence(difference, p, 1000, tests, CompareSettings())


def test_a_class_that_is_not_tested_counts_nowhere():
    settings = CompareSettings(pairs=6)
    labels = np.arange(600) % 2
    named = np.where(np.arange(600) < 30, 2, labels)  # 5% are taken for the class that no test image has
    right = Cell(settings.asked, 1000, 0).arm
    done = {cell: labels if cell.arm == right else named for cell in settings.cells()}
    found = judged(settings, done, labels, 3, labels >= 0)
    means = {row["arm"]: row["mean"] for row in found["arms"]}
    assert means[right.name] == 1
    assert means["supervised"] == pytest.approx(2 * 0.95 / 1.95)
    claim = next(claim for claim in found["differences"] if claim["arm"] == right.name)
    assert claim["difference"] == pytest.approx(means[right.name] - means["supervised"], abs=1e-6)


def test_more_pairs_with_the_budget_that_is_named_are_the_same_trainings():
    few, more = CompareSettings(), CompareSettings(pairs=11, budget=110 * 60.0)
    assert more.seconds("pretrain") == pytest.approx(few.seconds("pretrain"))


def test_speeds_of_other_images_are_not_taken_over(bench):
    other = replace(bench, train=bench.train.first_k(100))
    assert bench.computed != other.computed
    gray = bench.weights("untrained", 0)
    colour = ArraySource(np.repeat(bench.train.images, 3, axis=1), bench.train.labels, bench.train.class_names)
    assert replace(bench, train=colour).weights("untrained", 0) != gray


def test_the_plan_tells_cost_and_power(fmnist):
    lines = " ".join(plan_lines(CompareSettings(pairs=6), fmnist.train))
    assert "6 pairs x 6 arms x 1 number of labels: 36 trainings, 6 pretrainings, about 60 minutes" in lines
    assert "up to 1.8 GiB of memory" in lines
    assert "Found with a chance of 80%: a difference of 1.1 points" in lines
    assert "7 pairs are needed" in " ".join(plan_lines(CompareSettings(labels=(100, 1000), pairs=6), fmnist.train))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pairs": 0}, "pairs 0: must be 1 or more"),
        ({"methods": ("simclear",)}, "simclr"),
        ({"labels": (1000, 1000)}, "must be different numbers"),
        ({"budget": 60.0}, "too little for 36 trainings and 6 pretrainings. Give --budget 12m, or fewer pairs"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        CompareSettings(**settings)
