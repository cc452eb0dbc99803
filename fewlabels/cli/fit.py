"""Train the best classifier that a few labels allow."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from fewlabels._internal.errors import sanitize
from fewlabels.cli.options import (
    Backbone,
    Data,
    DataFolder,
    Device,
    Logger,
    Out,
    Root,
    Size,
    backbone_file,
    command_line,
    device_of,
    one_of,
    opened_data,
    resumable,
    seconds_of,
)

if TYPE_CHECKING:
    from fewlabels.fit.schedule import Schedule


def fit(
    dataset: Data,
    labels: Annotated[
        int | None,
        typer.Option(
            help="Number of labels to use; the other images go without. [all; of named data sets 1000]", metavar="N"
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Time for the whole fit, such as 90s, 10m or 1h.", metavar="TIME")
    ] = "10m",
    strategy: Annotated[
        str,
        typer.Option(help="auto, supervised, probe, finetune, kernel, label-spreading or selftrain.", metavar="NAME"),
    ] = "auto",
    backbone: Backbone = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="A pretraining's folder, or its backbone.safetensors.", metavar="RUN"),
    ] = None,
    draw: Annotated[
        str, typer.Option(help="Which labels to use: balanced (random, by seed) or first.", metavar="HOW")
    ] = "balanced",
    seed: Annotated[int, typer.Option(help="Of drawn labels, initial weights, views and splits.", metavar="N")] = 0,
    size: Size = None,
    root: Root = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the schedule and stop.", metavar="")] = False,
    out: Out = Path("runs/fit"),
    data: DataFolder = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Train the best classifier that a few labels allow, estimate its score, and test it once.

    Candidates are compared on held-out labels, a network trained on the labels alone among them. The best is shipped.
    No test images are set aside unless DATA names them. After Ctrl-C the same command resumes.

    Example: `fewlabels fit fashion-mnist --labels 1000 --budget 10m`
    """
    import numpy as np

    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import writable_folder, write_json
    from fewlabels.augment.recipes import fit_views
    from fewlabels.backbones.architectures import default_backbone
    from fewlabels.data.named import NAMED
    from fewlabels.data.source import UNLABELLED, balanced_indices
    from fewlabels.fit.config import FitConfig
    from fewlabels.fit.data import LabeledPool
    from fewlabels.fit.pipeline import plan_fit, run_fit
    from fewlabels.report.card import write_card
    from fewlabels.training.callbacks import Observer, make_logger

    one_of("--draw", draw, ("balanced", "first"))
    config = FitConfig(cast(Any, strategy), seconds_of("--budget", budget), init_from=backbone_file(start_from))
    console = Console(markup=False)
    torch_device = device_of(device)
    found = opened_data(dataset, data, console, size=size, roots=root, decode=not dry_run)
    train, test = found.train, found.test
    config = replace(config, backbone=default_backbone(backbone, train.shape))
    known = np.flatnonzero(train.labels != UNLABELLED)
    if labels is None:
        labels = min(1000, len(known)) if dataset in NAMED else len(known)
    train.checked(labels)
    rows = known[:labels] if draw == "first" else balanced_indices(train.labels, labels, seed)
    pool, views = LabeledPool.from_source(train.mask_labels(rows)), fit_views(train.shape[0])
    if dry_run:
        print_schedule(plan_fit(pool, config, views, seed, torch_device), config.budget, console)
        return
    writable_folder(out)
    about: dict[str, Any] = {"labels": labels, "draw": draw if labels < len(known) else "all", "seed": seed}
    log = make_logger(logger, out, {"command": command_line(), **about})
    try:
        with resumable():
            watch, tested = partial(Observer, logger=log, console=console), None if test is None else len(test)
            result = run_fit(pool, config, views, out, seed, watch, torch_device, tested)
    finally:
        log.close()
    if result.estimate is not None:
        expected, low, high = result.estimate
        console.print(f"Expected macro-F1: {expected:.3f} (95% interval {low:.3f} to {high:.3f}).")
    model_file = out / "model.safetensors"
    result.network.preprocessing = found.preprocessing
    save_model(result.network, model_file)
    about |= {"config": asdict(config), "strategy": result.strategy, "seconds": result.seconds}
    about |= {"data": train.name, "images": len(train), "class_names": list(train.class_names)}
    about |= {"left_out": found.failed, "pseudo_labels": result.pseudo_labels}
    about |= {"candidates": {name: score._asdict() for name, score in result.candidates.items()}}
    about |= {"messages": result.messages, "estimate": result.estimate and result.estimate._asdict()}
    about |= {"schedule": result.schedule.as_json(), **_tested(result.network, test, result.seconds, console)}
    write_json(out / "result.json", {"name": "fit", **provenance(command_line()), **about})
    write_card(out)
    console.print(f"Model: {model_file}", soft_wrap=True)


def save_model(network: Any, file: Path) -> None:
    """Write the classifier."""
    from fewlabels.backbones.weights import save_classifier

    save_classifier(network, file)


def _tested(network: Any, test: Any, seconds: float, console: Console) -> dict[str, Any]:
    """Print and return what the test images give; they are read once."""
    import numpy as np

    from fewlabels.backbones.inference import outputs
    from fewlabels.metrics.classification import evaluate

    if test is None:
        console.print("No image was set aside for a test.")
        return {"macro_f1": None}
    tested = evaluate(outputs(network, test), test)
    console.print(tested.text, highlight=False)
    console.print(f"Macro-F1 {tested.macro_f1:.4f} on {len(test):,} test images; the fit took {seconds:.0f} s.")
    untested = np.count_nonzero(np.bincount(test.labels, minlength=len(test.class_names)) == 0)
    if untested:
        console.print(f"Classes without a test image: {untested}. In macro-F1 each counts as 0.")
    figures = {"macro_f1": tested.macro_f1, "accuracy": tested.accuracy, "tested_on": len(test)}
    return {**figures, "calibration_error": tested.calibration_error, "per_class": tested.per_class}


def print_schedule(schedule: "Schedule", budget: float, console: Console) -> None:
    """Print a schedule as a table: what runs in any case, then what ships each candidate."""
    table = Table("stage", "splits", "seconds", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for learner, splits, seconds in schedule.rows(""):
        table.add_row(learner, splits, f"{seconds:.0f}")
    for candidate in schedule.candidates:
        table.add_section()
        table.add_row(f"if {candidate} is best:", "", "")
        for learner, splits, seconds in schedule.rows(candidate):
            table.add_row(f"  {learner}", splits, f"{seconds:.0f}")
    console.print(table)
    longest = max(map(schedule.total_seconds, schedule.candidates))
    console.print(f"At most {longest:.0f} s of a budget of {budget:.0f} s, on this machine.")
    _print_skipped(((stage.learner, stage.reason_skipped) for stage in schedule.skipped), console)


def _print_skipped(skipped: Iterable[tuple[str, str]], console: Console) -> None:
    for learner, reason in skipped:
        console.print(f"Not tried: {sanitize(learner)}. {reason[0].upper()}{reason[1:]}.", soft_wrap=True)
