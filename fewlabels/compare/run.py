"""A whole comparison: its cells, then the result and what its report is drawn from."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fewlabels._internal.files import write_json
from fewlabels.compare.cells import Bench
from fewlabels.compare.panels import Names, panels
from fewlabels.compare.plan import Cell, CompareSettings
from fewlabels.compare.trace import how_measured, pretrainings
from fewlabels.compare.verdict import audit_line, judged
from fewlabels.data.source import ArraySource, fingerprint, identity
from fewlabels.features.extractor import kept
from fewlabels.fit.settings import FitSettings, refuse_unsuitable
from fewlabels.metrics.paired_tests import LEVEL, detectable, fewest_pairs
from fewlabels.training.run_folder import refusing_damage

PROGRAM_BYTES = 1.5 * 2**30
"""Of the interpreter, the libraries and a training."""
USUAL_SPREAD = 0.006
"""Of paired differences of macro-F1, where nothing has been measured yet."""


Engine = Callable[[Bench, Sequence[Cell]], dict[Cell, np.ndarray]]
"""Gives the predictions of every cell, as :meth:`Bench.predictions` does."""


def one_after_the_other(bench: Bench, cells: Sequence[Cell]) -> dict[Cell, np.ndarray]:
    """The engine of one machine."""
    observer, done = bench.observer("compare"), {}
    for place, cell in enumerate(cells):
        if not bench.is_done(cell):
            observer.say(f"{place + 1} of {len(cells)}: {cell.words(bench.settings.pairs)}")
        done[cell] = bench.predictions(cell)
    return done


def compare(bench: Bench, engine: Engine = one_after_the_other) -> dict[str, Any]:
    """Do every cell that is not there, then read the test labels, once.

    Raises:
        InputError: if settings or weights do not suit the images.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what is done is kept.
    """
    settings, test = bench.settings, bench.test
    fits = FitSettings(backbone=settings.backbone, start_from=settings.weights)
    refuse_unsuitable(bench.train, fits)  # before an hour has passed
    twins = bench.twins()
    bench.observer("compare").say(audit_line(twins))
    done = engine(bench, list(settings.cells()))
    images = {
        "train": len(bench.train),
        "test": len(test),
        "shape": bench.train.shape,
        "data": fingerprint(bench.train),
    }
    about = {"settings": asdict(settings), "class_names": list(test.class_names), "images": images}
    about["audit"] = {"twins": int((twins >= 0).sum()), "test": len(test), "line": audit_line(twins)}
    figures = judged(settings, done, test.labels, len(test.class_names), twins < 0)
    return {**about, **figures, **pretrainings(bench), "measured": how_measured(bench)}


def write_panels(bench: Bench, names: Names) -> None:
    """Leave ``panels.json``, unless it is there, of the same classifier."""
    file = bench.folder / "panels.json"
    made_of = {"cell": bench.name(bench.settings.shown), "test": identity(bench.test)}
    if file.is_file():
        with refusing_damage(file):
            if json.loads(file.read_text()).get("made_of") == made_of:
                return
    bench.observer("compare").say("Drawing the points (UMAP)")
    write_json(file, {"made_of": made_of, **panels(bench, names)})


def memory_bytes(train: ArraySource) -> float:
    """What a comparison takes at most: images' features are held in single and half precision as they are mixed."""
    return PROGRAM_BYTES + len(train) * (7.0 * kept(len(train)) + math.prod(train.shape))


def plan_lines(settings: CompareSettings, train: ArraySource) -> list[str]:
    """What a comparison will do, how long it takes at most, with how much memory, and what it could find."""
    arms, tests = settings.arms(), len(settings.labels)
    all_labels = min(settings.labels) == train.num_labels
    lines = [
        f"{settings.pairs} pairs x {len(arms)} arms x {tests} number{'s' if tests > 1 else ''} of labels: "
        f"{settings.pairs * len(arms) * tests} trainings, {settings.pairs * len(settings.methods)} pretrainings, "
        f"about {settings.budget / 60:.0f} minutes on this machine, up to "
        f"{memory_bytes(train) / 2**30:.1f} GiB of memory.",
        f"Each pair is {'' if all_labels else 'another draw of labels, '}other initial weights and another pretraining "
        f"({settings.seconds('pretrain'):.0f} s each).",
        f"Asked, before anything is measured: is {settings.asked.name} better than supervised training?",
    ]
    least = fewest_pairs(tests)
    if settings.pairs < least:
        lines.append(f"Nothing could be claimed: {least} pairs are needed for p below {LEVEL}. Give --pairs {least}.")
    else:
        points = 100 * detectable(settings.pairs, tests) * USUAL_SPREAD
        lines.append(
            f"Found with a chance of 80%: a difference of {points:.1f} points, if pairs differ by "
            f"{100 * USUAL_SPREAD:.1f} points (one standard deviation), as is usual."
        )
    return lines
