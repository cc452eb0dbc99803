"""The best classifier for these labels."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from fewlabels.cli.options import (
    Backbone,
    Data,
    DataFolder,
    Device,
    Logger,
    Out,
    Size,
    backbone_file,
    command_line,
    device_of,
    one_of,
    opened_data,
    saying_how_to_go_on,
    seconds_of,
)


def fit(
    dataset: Data,
    labels: Annotated[
        int | None,
        typer.Option(help="How many labels to use; other images go without. [all; of fashion-mnist 1000]", metavar="N"),
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for the training, such as 90s, 10m or 1h.", metavar="TIME")] = "10m",
    strategy: Annotated[
        str, typer.Option(help="auto, supervised, probe, finetune, kernel, propagate or selftrain.", metavar="NAME")
    ] = "auto",
    backbone: Backbone = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="A pretraining's folder, or its backbone.safetensors.", metavar="RUN"),
    ] = None,
    draw: Annotated[str, typer.Option(help="balanced (random, by seed) or first.", metavar="HOW")] = "balanced",
    seed: Annotated[int, typer.Option(help="Weights, order and draw depend on it alone.", metavar="N")] = 0,
    size: Size = None,
    out: Out = Path("runs/fit"),
    data: DataFolder = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Train the best classifier that a few labels can buy, foretell how good it is, and test it once.

    Ways are tried on folds of the labels, plain supervised training among them; it is kept where none is better.
    Self-training is taken unless it is clearly worse than the best: it has most of its time still to come.
    Where DATA name no images for a test, none are kept back. Stopped with Ctrl-C, the same command goes on.

    Example: `fewlabels fit fashion-mnist --labels 1000 --budget 10m`
    """
    import numpy as np

    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import writable_folder, write_json
    from fewlabels.augment.recipes import fit_views
    from fewlabels.backbones.architectures import usual_backbone
    from fewlabels.backbones.inference import outputs
    from fewlabels.backbones.weights import save_classifier
    from fewlabels.data.dataset import FASHION_MNIST
    from fewlabels.data.source import UNLABELLED, balanced_indices
    from fewlabels.fit.fit import Fit
    from fewlabels.fit.pool import Pool
    from fewlabels.fit.settings import FitSettings
    from fewlabels.metrics.classification import evaluate
    from fewlabels.report.card import write_card
    from fewlabels.training.callbacks import Observer, make_logger

    one_of("--draw", draw, ("balanced", "first"))
    settings = FitSettings(cast(Any, strategy), seconds_of("--budget", budget), start_from=backbone_file(start_from))
    console = Console(markup=False)
    torch_device = device_of(device)
    found = opened_data(dataset, data, console, size=size)
    train, test = found.train, found.test
    settings = replace(settings, backbone=usual_backbone(backbone, train.shape))
    known = np.flatnonzero(train.labels != UNLABELLED)
    if labels is None:
        labels = min(1000, len(known)) if dataset == FASHION_MNIST else len(known)
    train.checked(labels)
    rows = known[:labels] if draw == "first" else balanced_indices(train.labels, labels, seed)
    writable_folder(out)
    log = make_logger(logger, out, {"command": command_line(), **asdict(settings), "labels": labels, "seed": seed})
    pool, views = Pool.of(train.hiding_all_but(rows)), fit_views(train.shape[0])
    try:
        with saying_how_to_go_on():
            watch = partial(Observer, logger=log, console=console)
            tested_on = None if test is None else len(test)
            work = Fit(pool, settings, views, out, seed, watch, torch_device, tested_on)
            fitted, seconds = work.go(), work.seconds()
    finally:
        log.close()
    if fitted.estimate is not None:
        expected, low, high = fitted.estimate
        console.print(f"Expected macro-F1: {expected:.3f} (95%: {low:.3f} to {high:.3f}), before any test.")
    model_file = out / "model.safetensors"
    fitted.network.preparation = found.preparation
    save_classifier(fitted.network, model_file)
    about = {"labels": labels, "draw": draw if labels < len(known) else "all", "seed": seed}
    about |= {"decided": asdict(settings), "strategy": fitted.strategy}
    about |= {"data": train.name, "images": len(train), "class_names": list(train.class_names)}
    about |= {"left_out": found.failed, "pseudo_labels": fitted.pseudo_labels}
    about |= {"tried": fitted.tried, "said": fitted.said, "estimate": fitted.estimate and fitted.estimate._asdict()}
    figures: dict[str, Any] = {"macro_f1": None, "seconds": seconds}
    if test is not None:
        tested = evaluate(outputs(fitted.network, test), test)
        figures |= {"macro_f1": tested.macro_f1, "accuracy": tested.accuracy, "tested_on": len(test)}
        figures |= {"calibration_error": tested.calibration_error, "per_class": tested.per_class}
        console.print(tested.text, highlight=False)
        console.print(f"Macro-F1 {tested.macro_f1:.4f} on {len(test):,} test images, {seconds} s of training.")
        untested = np.count_nonzero(np.bincount(test.labels, minlength=len(test.class_names)) == 0)
        if untested:
            console.print(f"Classes without a test image: {untested}. In macro-F1 each counts as 0.")
    else:
        console.print("Nothing was kept back for a test: what is expected is what there is to say.")
    write_json(out / "result.json", {"name": "fit", **provenance(command_line()), **about, **figures})
    write_card(out)
    console.print(f"Model: {model_file}", soft_wrap=True)
