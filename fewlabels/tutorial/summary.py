"""Summary of the tutorial's experiments: scores, a test of its claims, and SimCLR against SimSiam."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewlabels.tutorial.methods import SIMCLR, SIMSIAM

CLAIMED_DROP = 0.25
"""Relative loss of F1 that the tutorial claims for 1,000 instead of 60,000 labels."""
CLAIMED_GAIN = 0.15
"""Relative gain of F1 that the tutorial claims for SimSiam with 1,000 labels."""

Row = dict[str, Any]


@dataclass(frozen=True)
class ExperimentSummary:
    """Scores of one experiment: mean and standard deviation over seeds."""

    name: str
    title: str
    labels: int
    epochs: int
    pretrain_epochs: int
    macro_f1: float
    spread: float | None
    """Standard deviation over seeds; None for one seed."""
    seeds: int
    seconds: float
    """Mean duration of the training over seeds, without pretraining."""

    @property
    def macro_f1_text(self) -> str:
        """Mean and standard deviation as text."""
        return f"{self.macro_f1:.4f}" if self.spread is None else f"{self.macro_f1:.4f} ± {self.spread:.4f}"


def summarise(rows: list[Row]) -> list[ExperimentSummary]:
    """Summaries of all experiments, in the order in which they were run, from rows with one seed each."""
    summaries = []
    for name in dict.fromkeys(row["arm"] for row in rows):
        seeds = [row for row in rows if row["arm"] == name]
        scores = np.array([row["macro_f1"] for row in seeds])
        first = seeds[0]
        summaries.append(
            ExperimentSummary(
                name=name,
                title=first["title"],
                labels=first["labels"],
                epochs=first["epochs"],
                pretrain_epochs=first["pretrain_epochs"],
                macro_f1=float(scores.mean()),
                spread=float(scores.std(ddof=1)) if len(scores) > 1 else None,
                seeds=len(scores),
                seconds=float(np.mean([row["seconds"] for row in seeds])),
            )
        )
    return summaries


def claims(summaries: list[ExperimentSummary], quick: bool) -> list[str]:
    """Sentences that compare the tutorial's two claims with the measured scores.

    Args:
        summaries: of all experiments.
        quick: whether the run had too few epochs to test the claims.
    """

    def verdict(holds: bool) -> str:
        if quick:
            return "Too few epochs here to judge."
        return "The claim holds." if holds else "The claim does not hold."

    by_name = {summary.name: summary for summary in summaries}
    full, few = by_name["supervised-60000"], by_name["supervised-1000"]
    printed, intended = by_name["frozen-as-printed"], by_name["frozen-as-intended"]
    drop = (full.macro_f1 - few.macro_f1) / full.macro_f1
    sentences = [
        f"Claim: from {full.labels:,} labels to {few.labels:,}, performance 'drops more than 25%'. "
        f"Measured: {full.macro_f1:.3f} to {few.macro_f1:.3f}, {100 * (full.macro_f1 - few.macro_f1):.1f} points "
        f"or {drop:.1%} ({full.epochs} and {few.epochs} epochs). {verdict(drop > CLAIMED_DROP)}"
    ]
    variants = ((printed, "with the code as printed (no weights are loaded)"), (intended, "with weights loaded"))
    for frozen, how in variants:
        gain = (frozen.macro_f1 - few.macro_f1) / few.macro_f1
        sentences.append(
            f"Claim: SimSiam raises F1 by 15% over supervised training on {few.labels:,} labels. Measured {how}: "
            f"{few.macro_f1:.3f} to {frozen.macro_f1:.3f}, {100 * (frozen.macro_f1 - few.macro_f1):+.1f} points "
            f"or {gain:+.1%} ({_epochs_and_seeds(frozen)}). {verdict(gain >= CLAIMED_GAIN)}"
        )
    return sentences


def _epochs_and_seeds(summary: ExperimentSummary) -> str:
    seeds = f"{summary.seeds} seed{'s' if summary.seeds > 1 else ''}"
    return f"{summary.pretrain_epochs} epochs of pretraining, {summary.epochs} of the head, {seeds}"


def simclr_against_simsiam(
    summaries: list[ExperimentSummary], states: dict[str, Row], num_images: int
) -> list[list[str]]:
    """The tutorial's comparison of both methods with measured figures: a table header and rows of three cells.

    Args:
        summaries: of all experiments.
        states: loss curve, epochs and seconds of each method's longest pretraining.
        num_images: number of training images.
    """
    by_name = {summary.name: summary for summary in summaries}
    short_simclr, short_simsiam = by_name["frozen-simclr"], by_name["frozen-simsiam-short"]
    batch = SIMCLR.batch_size
    rates = {name: num_images * state["epochs"] / state["seconds"] for name, state in states.items()}
    return [
        ["", "SimCLR", "SimSiam"],
        ["negative pairs", f"the other {2 * batch - 2} views of the batch", "none"],
        ["loss", f"NT-Xent, temperature {SIMCLR.temperature}", "negative cosine, stop-gradient on one side"],
        ["collapse prevented by", "repulsion of negative pairs", "predictor and stop-gradient"],
        [
            "on top of the backbone",
            f"projector 2048 to {SIMCLR.projector_hidden} to {SIMCLR.projector_out}",
            f"predictor 2048 to {SIMSIAM.predictor_hidden} to 2048",
        ],
        ["batch", f"{SIMCLR.batch_size} (larger is better)", f"{SIMSIAM.batch_size} (small is enough)"],
        ["optimizer", _optimizer(SIMCLR.optimizer), _optimizer(SIMSIAM.optimizer)],
        ["images/s, measured", f"{rates['simclr']:,.0f}", f"{rates['simsiam']:,.0f}"],
        [
            f"macro-F1 of frozen backbone + head (epochs of pretraining: {short_simclr.pretrain_epochs})",
            short_simclr.macro_f1_text,
            short_simsiam.macro_f1_text,
        ],
    ]


def _optimizer(settings: Any) -> str:
    return f"{settings.name.upper()}, learning rate {settings.lr:g}, weight decay {settings.weight_decay:g}"
