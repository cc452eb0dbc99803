"""A whole comparison: all trials, then the result and the data of its report."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fewlabels._internal.files import write_json
from fewlabels.compare.cells import Experiment
from fewlabels.compare.panels import ImageNames, panels
from fewlabels.compare.plan import CompareSettings, Trial
from fewlabels.compare.trace import how_measured, pretrainings
from fewlabels.compare.verdict import audit_line, evaluate_trials
from fewlabels.data.source import ArraySource, fingerprint, identity
from fewlabels.features.extractor import FeatureConfig
from fewlabels.fit.config import FitConfig
from fewlabels.fit.pipeline import refuse_unsuitable
from fewlabels.metrics.paired_tests import SIGNIFICANCE_LEVEL, detectable_effect, min_pairs
from fewlabels.training.run_folder import refusing_damage

PROGRAM_BYTES = 1.5 * 2**30
"""Memory of the interpreter, the libraries and one training, without images and their features. A rough estimate."""
TYPICAL_SPREAD = 0.006
"""Standard deviation over pairs of a difference of macro-F1, before any is measured. Those of Fashion-MNIST range from
0.004 to 0.008 (``benchmarks/results/compare.json``)."""


TrialRunner = Callable[[Experiment, Sequence[Trial]], dict[Trial, np.ndarray]]
"""Returns the predictions of every trial, as :meth:`Experiment.predictions` does."""


def run_sequentially(experiment: Experiment, trials: Sequence[Trial]) -> dict[Trial, np.ndarray]:
    """Predictions of all trials, run one after another on this machine."""
    observer, predictions = experiment.observer("compare"), {}
    for index, trial in enumerate(trials):
        if not experiment.is_done(trial):
            observer.say(f"{index + 1} of {len(trials)}: {trial.describe(experiment.settings.pairs)}")
        predictions[trial] = experiment.predictions(trial)
    return predictions


def compare(experiment: Experiment, run_trials: TrialRunner = run_sequentially) -> dict[str, Any]:
    """Run all trials that are not done yet, read the test labels once, and return the result as JSON.

    Args:
        experiment: the comparison.
        run_trials: runs trials and returns their predictions.

    Raises:
        InputError: if settings or weights do not suit the images.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; finished trials are saved.
    """
    settings, test = experiment.settings, experiment.test
    fits = FitConfig(backbone=settings.backbone, init_from=settings.weights)
    refuse_unsuitable(experiment.train, fits)  # now rather than after an hour
    near_duplicates = experiment.near_duplicates()
    experiment.observer("compare").say(audit_line(near_duplicates))
    predictions = run_trials(experiment, list(settings.trials()))
    images = {
        "train": len(experiment.train),
        "test": len(test),
        "shape": experiment.train.shape,
        "data": fingerprint(experiment.train),
    }
    about = {"settings": asdict(settings), "class_names": list(test.class_names), "images": images}
    about["audit"] = {
        "near_duplicates": int((near_duplicates >= 0).sum()),
        "test": len(test),
        "line": audit_line(near_duplicates),
    }
    figures = evaluate_trials(settings, predictions, test.labels, len(test.class_names), near_duplicates < 0)
    return {**about, **figures, **pretrainings(experiment), "measured": how_measured(experiment)}


def write_panels(experiment: Experiment, names: ImageNames) -> None:
    """Write ``panels.json`` for the displayed classifier, unless the file exists already for the same classifier."""
    file = experiment.folder / "panels.json"
    made_of = {"trial": experiment.trial_id(experiment.settings.displayed_trial), "test": identity(experiment.test)}
    if file.is_file():
        with refusing_damage(file):
            if json.loads(file.read_text()).get("made_of") == made_of:
                return
    experiment.observer("compare").say("Computing the map of the images (UMAP)")
    write_json(file, {"made_of": made_of, **panels(experiment, names)})


def memory_bytes(train: ArraySource) -> float:
    """Peak memory of a comparison in bytes. Features are in single and half precision at once while they are mixed."""
    return PROGRAM_BYTES + len(train) * (7.0 * FeatureConfig().dimensions() + math.prod(train.shape))


def plan_lines(settings: CompareSettings, train: ArraySource) -> list[str]:
    """Lines with the trials of a comparison, its time, its memory and the smallest difference that it can detect."""
    candidates, tests = settings.candidates(), len(settings.labels)
    same_labels = min(settings.labels) == train.num_labels
    varies = f"{'' if same_labels else 'random draw of labels, '}initial weights and pretraining"
    lines = [
        f"{settings.pairs} pairs x {len(candidates)} candidates x {tests} number{'s' if tests > 1 else ''} of labels: "
        f"{settings.pairs * len(candidates) * tests} trainings, {settings.pairs * len(settings.methods)} pretrainings, "
        f"about {settings.budget / 60:.0f} minutes on this machine, up to "
        f"{memory_bytes(train) / 2**30:.1f} GiB of memory.",
        f"Each pair has its own {varies} ({settings.seconds('pretrain'):.0f} s per pretraining).",
        "Primary hypothesis, fixed before any measurement: "
        f"{settings.primary.name} is better than supervised training.",
    ]
    least = min_pairs(tests)
    if settings.pairs < least:
        lines.append(
            f"No claim is possible: {least} pairs are needed for p below {SIGNIFICANCE_LEVEL}. Give --pairs {least}."
        )
    else:
        points = 100 * detectable_effect(settings.pairs, tests) * TYPICAL_SPREAD
        lines.append(
            f"Detectable with 80% power: a difference of {points:.1f} points, if differences have a standard deviation "
            f"of {100 * TYPICAL_SPREAD:.1f} points over pairs, as is typical."
        )
    return lines
