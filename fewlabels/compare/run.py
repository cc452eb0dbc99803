"""A whole comparison: its cells one after the other, and the result."""

from typing import Any

import numpy as np

from fewlabels.compare.cells import Bench
from fewlabels.compare.plan import Cell, CompareSettings
from fewlabels.compare.verdict import judged
from fewlabels.evidence import LEVEL, detectable, fewest_pairs
from fewlabels.fit.fit import FitSettings, refuse_unsuitable

USUAL_SPREAD = 0.006
"""Of paired differences of macro-F1, where nothing has been measured yet."""


def compare(bench: Bench) -> dict[str, Any]:
    """Do every cell that is not there, then read the test labels, once.

    Raises:
        InputError: if settings or weights do not suit the images.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what is done is kept.
    """
    fits = FitSettings(backbone=bench.settings.backbone, start_from=bench.settings.weights)
    refuse_unsuitable(bench.train, fits)  # before an hour has passed
    observer = bench.observer("compare")
    cells = list(bench.settings.cells())
    done: dict[Cell, np.ndarray] = {}
    for place, cell in enumerate(cells):
        observer.say(
            f"{place + 1} of {len(cells)}: {cell.arm.name}, {cell.labels:,} labels, pair {cell.pair + 1} of "
            f"{bench.settings.pairs}"
        )
        done[cell] = bench.predictions(cell)
    return judged(bench.settings, done, bench.test.labels, len(bench.test.class_names))


def plan_lines(settings: CompareSettings) -> list[str]:
    """What a comparison will do, how long it takes at most, and what it could find."""
    arms, tests = settings.arms(), len(settings.labels)
    lines = [
        f"{settings.pairs} pairs x {len(arms)} arms x {tests} number{'s' if tests > 1 else ''} of labels: "
        f"{settings.pairs * len(arms) * tests} trainings, {settings.pairs * len(settings.methods)} pretrainings, "
        f"about {settings.budget / 60:.0f} minutes on this machine.",
        f"Each pair is another draw of labels, other initial weights and another pretraining "
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
