"""What the tutorial's arms show: the table, its claims tested, SimCLR against SimSiam."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewlabels.tutorial.methods import SIMCLR, SIMSIAM

DROP_CLAIMED = 0.25
GAIN_CLAIMED = 0.15

Row = dict[str, Any]


@dataclass(frozen=True)
class ArmSummary:
    """One line of the table: mean and standard deviation over seeds."""

    arm: str
    title: str
    labels: int
    epochs: int
    pretrain_epochs: int
    macro_f1: float
    spread: float | None
    """Standard deviation over seeds; None for one seed."""
    seeds: int
    seconds: float
    """Training, averaged over seeds; pretraining not included."""

    @property
    def macro_f1_text(self) -> str:
        """Mean and spread as they are printed."""
        return f"{self.macro_f1:.4f}" if self.spread is None else f"{self.macro_f1:.4f} ± {self.spread:.4f}"


def summarise(rows: list[Row]) -> list[ArmSummary]:
    """Group rows by arm, arms in the order they were run."""
    summaries = []
    for name in dict.fromkeys(row["arm"] for row in rows):
        of_arm = [row for row in rows if row["arm"] == name]
        scores = np.array([row["macro_f1"] for row in of_arm])
        first = of_arm[0]
        summaries.append(
            ArmSummary(
                arm=name,
                title=first["title"],
                labels=first["labels"],
                epochs=first["epochs"],
                pretrain_epochs=first["pretrain_epochs"],
                macro_f1=float(scores.mean()),
                spread=float(scores.std(ddof=1)) if len(scores) > 1 else None,
                seeds=len(scores),
                seconds=float(np.mean([row["seconds"] for row in of_arm])),
            )
        )
    return summaries


def claims(summaries: list[ArmSummary], quick: bool) -> list[str]:
    """The tutorial's two claims beside what was measured; a quick run is not enough to judge them."""

    def verdict(holds: bool) -> str:
        if quick:
            return "Too few epochs here to judge."
        return "The claim holds." if holds else "The claim does not hold."

    by_arm = {summary.arm: summary for summary in summaries}
    full, few = by_arm["supervised-60000"], by_arm["supervised-1000"]
    printed, intended = by_arm["frozen-as-printed"], by_arm["frozen-as-intended"]
    drop = (full.macro_f1 - few.macro_f1) / full.macro_f1
    sentences = [
        f"Claim: from {full.labels:,} labels to {few.labels:,}, performance 'drops more than 25%'. "
        f"Measured: {full.macro_f1:.3f} to {few.macro_f1:.3f}, {100 * (full.macro_f1 - few.macro_f1):.1f} points "
        f"or {drop:.1%} ({full.epochs} and {few.epochs} epochs). {verdict(drop > DROP_CLAIMED)}"
    ]
    for arm, how in ((printed, "with the code as printed (no weights are loaded)"), (intended, "with weights loaded")):
        gain = (arm.macro_f1 - few.macro_f1) / few.macro_f1
        sentences.append(
            f"Claim: SimSiam raises F1 by 15% over supervised training on {few.labels:,} labels. Measured {how}: "
            f"{few.macro_f1:.3f} to {arm.macro_f1:.3f}, {100 * (arm.macro_f1 - few.macro_f1):+.1f} points "
            f"or {gain:+.1%} ({_pretraining(arm)}). {verdict(gain >= GAIN_CLAIMED)}"
        )
    return sentences


def _pretraining(arm: ArmSummary) -> str:
    seeds = f"{arm.seeds} seed{'s' if arm.seeds > 1 else ''}"
    return f"{arm.pretrain_epochs} epochs of pretraining, {arm.epochs} of the head, {seeds}"


def simclr_against_simsiam(summaries: list[ArmSummary], states: dict[str, Row], num_images: int) -> list[list[str]]:
    """The tutorial's comparison as a table, with what was measured here: a header and rows of three cells."""
    by_arm = {summary.arm: summary for summary in summaries}
    short_simclr, short_simsiam = by_arm["frozen-simclr"], by_arm["frozen-simsiam-short"]
    batch = SIMCLR.batch_size
    rates = {name: num_images * state["epochs"] / state["seconds"] for name, state in states.items()}
    return [
        ["", "SimCLR", "SimSiam"],
        ["negative pairs", f"the other {2 * batch - 2} views of the batch", "none"],
        ["loss", f"NT-Xent, temperature {SIMCLR.temperature}", "negative cosine, stop-gradient on one side"],
        ["kept from collapse by", "negatives pushing apart", "predictor and stop-gradient"],
        [
            "on top of the backbone",
            f"projector 2048 to {SIMCLR.projector_hidden} to {SIMCLR.projector_out}",
            f"predictor 2048 to {SIMSIAM.predictor_hidden} to 2048",
        ],
        ["batch", f"{SIMCLR.batch_size} (large ones help)", f"{SIMSIAM.batch_size} (small ones do)"],
        ["optimizer", _optimizer(SIMCLR.optimizer), _optimizer(SIMSIAM.optimizer)],
        ["images/s, measured", f"{rates['simclr']:,.0f}", f"{rates['simsiam']:,.0f}"],
        [
            f"macro-F1 of frozen backbone + head (epochs of pretraining: {short_simclr.pretrain_epochs})",
            short_simclr.macro_f1_text,
            short_simsiam.macro_f1_text,
        ],
    ]


def _optimizer(settings: Any) -> str:
    return f"{settings.name.upper()}, rate {settings.lr:g}, weight decay {settings.weight_decay:g}"
