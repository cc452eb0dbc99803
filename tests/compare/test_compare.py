from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from fewlabels._internal.errors import InputError
from fewlabels._internal.tensors import read_weights
from fewlabels.compare import cells
from fewlabels.compare.cells import Experiment
from fewlabels.compare.plan import Candidate, CompareSettings, Trial
from fewlabels.compare.run import compare, plan_lines
from fewlabels.compare.verdict import evaluate_trials, verdict_sentence
from fewlabels.data.source import ArraySource
from fewlabels.fit.costs import measured_costs
from fewlabels.metrics.paired_tests import Difference


def test_compare_scores_every_candidate_and_reuses_finished_trials(experiment, monkeypatch):
    result = compare(experiment)
    names = ["pixels", "supervised", "untrained-probe", "simclr-probe", "simclr-finetune", "fit"]
    assert [row["arm"] for row in result["scores"]] == names
    assert result["primary"] == "simclr-finetune"
    assert {claim["verdict"] for claim in result["differences"]} == {"cannot tell"}
    assert "With 2 pairs nothing can be claimed: 6 are needed (--pairs 6 --budget " in result["verdict"]
    assert not list((experiment.folder / "work").iterdir())
    pixels = next(row for row in result["scores"] if row["arm"] == "pixels")
    assert min(pixels["macro_f1"]) > 0.4

    def fail(*args):
        raise AssertionError("a finished trial runs again")

    monkeypatch.setattr(Experiment, "_predict", fail)
    assert compare(experiment) == result


def test_pairs_differ_in_labels_weights_and_pretraining(experiment):
    pools = [experiment.pool(Trial(Candidate("supervised"), 30, pair)) for pair in (0, 1)]
    assert not np.array_equal(pools[0].labelled, pools[1].labelled)
    for init in ("untrained", "simclr"):
        first, second = (read_weights(experiment.initial_weights(init, pair))[0] for pair in (0, 1))
        assert not first["0.weight"].equal(second["0.weight"])


def test_compare_resumes_with_the_first_unfinished_trial(experiment, monkeypatch):
    predict, done = Experiment._predict, []

    def predict_twice(self, trial, work):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(trial)
        return predict(self, trial, work)

    monkeypatch.setattr(Experiment, "_predict", predict_twice)
    with pytest.raises(KeyboardInterrupt):
        compare(experiment)
    trials = list(experiment.settings.trials())
    assert done == trials[:2]

    def predict_zeros(self, trial, work):
        done.append(trial)
        return np.zeros(len(self.test), np.int64)

    monkeypatch.setattr(Experiment, "_predict", predict_zeros)
    compare(experiment)
    assert done == trials


def test_compare_refuses_missing_weights_before_any_training(experiment):
    settings = replace(experiment.settings, weights=str(experiment.folder / "mine.safetensors"))
    with pytest.raises(InputError, match=r"mine.safetensors: no such model file"):
        compare(replace(experiment, settings=settings))
    assert not experiment.folder.exists()


def test_trial_runs_with_the_stored_number_of_threads(experiment, monkeypatch):
    seen = []

    def predict_zeros(self, trial, work):
        seen.append((torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())))
        return np.zeros(len(self.test), np.int64)

    monkeypatch.setattr(Experiment, "_predict", predict_zeros)
    assert experiment.threads() == 1
    torch.set_num_threads(3)
    experiment.predictions(Trial(Candidate("pixels"), 30, 0))
    assert torch.get_num_threads() == 3
    assert set(seen[0]) == {experiment.threads()} == {1}


def test_costs_are_measured_once_for_any_number_of_labels(experiment, monkeypatch):
    monkeypatch.setattr(cells, "measured_costs", measured_costs)
    costs = experiment.costs()
    assert not costs.clock
    assert min(value for name, value in asdict(costs).items() if name != "clock") > 0
    fewer = replace(experiment, settings=replace(experiment.settings, labels=(20,)))
    assert fewer.costs() == costs


def test_trial_with_another_time_limit_has_another_file(experiment):
    trial = Trial(Candidate("supervised"), 30, 0)
    experiment.predictions(trial)
    longer = replace(experiment, settings=replace(experiment.settings, budget=900.0))
    longer.predictions(trial)
    assert len(list((experiment.folder / "trials").iterdir())) == 2


def test_evaluate_trials_finds_a_large_difference_of_the_primary_candidate():
    settings = CompareSettings(pairs=6)
    labels = np.arange(600) % 3
    rng = np.random.default_rng(0)

    def predictions(rate: float) -> np.ndarray:
        return np.where(rng.random(600) < rate, labels, (labels + 1) % 3)

    rates = {"mocov2-finetune": 0.9, "supervised": 0.8}
    predicted = {trial: predictions(rates.get(trial.candidate.name, 0.8)) for trial in settings.trials()}
    result = evaluate_trials(settings, predicted, labels, 3, labels >= 0)
    claims = {claim["arm"]: claim for claim in result["differences"]}
    assert claims["mocov2-finetune"]["verdict"] == "helps"
    assert claims["mocov2-finetune"]["p_adjusted"] == claims["mocov2-finetune"]["p"] == 2 / 64
    assert claims["pixels"]["p_adjusted"] > claims["pixels"]["p"]
    assert result["verdict"].startswith("Pretraining helps: +")


@pytest.mark.parametrize(
    ("difference", "p", "tests", "text"),
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
def test_verdict_sentence(difference, p, tests, text):
    assert text in verdict_sentence(difference, p, 1000, tests, CompareSettings())


def test_evaluate_trials_leaves_classes_without_test_images_out_of_macro_f1():
    settings = CompareSettings(pairs=6)
    labels = np.arange(600) % 2
    others = np.where(np.arange(600) < 30, 2, labels)  # 5% of predictions are a class without test images
    primary = settings.primary
    predictions = {trial: labels if trial.candidate == primary else others for trial in settings.trials()}
    result = evaluate_trials(settings, predictions, labels, 3, labels >= 0)
    means = {row["arm"]: row["mean"] for row in result["scores"]}
    assert means[primary.name] == 1
    assert means["supervised"] == pytest.approx(2 * 0.95 / 1.95)
    claim = next(claim for claim in result["differences"] if claim["arm"] == primary.name)
    assert claim["difference"] == pytest.approx(means[primary.name] - means["supervised"], abs=1e-6)


def test_pairs_and_budget_of_the_verdict_keep_the_time_per_training():
    few, more = CompareSettings(), CompareSettings(pairs=11, budget=110 * 60.0)
    assert more.seconds("pretrain") == pytest.approx(few.seconds("pretrain"))


def test_speeds_and_initial_weights_depend_on_the_images(experiment):
    fewer = replace(experiment, train=experiment.train.first_k(100))
    assert experiment.speed_key != fewer.speed_key
    gray = experiment.initial_weights("untrained", 0)
    train = experiment.train
    colour = ArraySource(np.repeat(train.images, 3, axis=1), train.labels, train.class_names)
    assert replace(experiment, train=colour).initial_weights("untrained", 0) != gray


def test_plan_lines_state_cost_and_power(fmnist):
    lines = " ".join(plan_lines(CompareSettings(pairs=6), fmnist.train))
    assert "6 pairs x 6 candidates x 1 number of labels: 36 trainings, 6 pretrainings, about 60 minutes" in lines
    assert "up to 1.8 GiB of memory" in lines
    assert "Detectable with 80% power: a difference of 1.1 points" in lines
    assert "7 pairs are needed" in " ".join(plan_lines(CompareSettings(labels=(100, 1000), pairs=6), fmnist.train))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 0}, "pairs 0: must be 1 or more"),
        ({"methods": ("simclear",)}, "simclr"),
        ({"labels": (1000, 1000)}, "must be different numbers"),
        ({"budget": 60.0}, "too little for 36 trainings and 6 pretrainings. Give --budget 12m, or fewer pairs"),
    ],
)
def test_compare_settings_refuse_values_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        CompareSettings(**settings)
