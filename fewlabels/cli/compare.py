"""The commands ``compare`` and ``report``."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fewlabels._internal.errors import InputError
from fewlabels.cli.options import (
    Backbone,
    Data,
    DataFolder,
    Device,
    Out,
    Root,
    Size,
    backbone_file,
    command_line,
    device_of,
    numbers_of,
    one_of,
    opened_data,
    resumable,
    seconds_of,
)

if TYPE_CHECKING:
    from fewlabels.compare.run import TrialRunner

TEST_FRACTION = 0.2
"""Fraction of the labelled images that become the test set, if the data define none. Not tuned."""


def compare(
    dataset: Data,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Number of labels, or several separated by commas. [all; 1000 for fashion-mnist]", metavar="N,N"
        ),
    ] = None,
    pairs: Annotated[
        int, typer.Option(help="Number of pairs, each with its own labels and seed; a claim needs 6.", metavar="N")
    ] = 6,
    budget: Annotated[
        str, typer.Option(help="Time for the whole comparison, such as 30m or 2h.", metavar="TIME")
    ] = "60m",
    methods: Annotated[
        str,
        typer.Option(help="Pretraining methods separated by commas; the verdict is about the first.", metavar="NAMES"),
    ] = "mocov2",
    backbone: Backbone = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Also compare this pretraining: its folder or backbone.safetensors.", metavar="RUN"
        ),
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Print time, memory and detectable difference, and stop.", metavar="")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: parallel, on this machine or the cluster in RAY_ADDRESS.", metavar="NAME"),
    ] = "local",
    size: Size = None,
    root: Root = None,
    out: Out = Path("runs/compare"),
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Test whether pretraining helps on these images, by paired trainings.

    The result is a verdict in one sentence and a report. If DATA define no test images, a fifth of the labelled ones
    becomes the test set. After Ctrl-C the same command resumes.

    Example: `fewlabels compare fashion-mnist --labels 1000 --pairs 6`
    """
    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import writable_folder, write_json
    from fewlabels.augment.recipes import RECIPES, default_recipe, fit_views
    from fewlabels.backbones.architectures import default_backbone
    from fewlabels.compare.cells import Experiment
    from fewlabels.compare.plan import CompareSettings
    from fewlabels.compare.run import compare as run_compare
    from fewlabels.compare.run import plan_lines, write_panels
    from fewlabels.data.named import FASHION_MNIST
    from fewlabels.report.compare import write_compare_report
    from fewlabels.training.callbacks import Observer
    from fewlabels.training.precision import fastest_precision

    run_trials = _trial_runner(engine)
    settings = CompareSettings(
        numbers_of("--labels", labels or "1000"),
        pairs,
        seconds_of("--budget", budget),
        tuple(methods.split(",")),
        weights=backbone_file(start_from),
    )
    console = Console(markup=False)
    torch_device = device_of(device)
    found = opened_data(dataset, data, console, TEST_FRACTION, size, root)
    train, test = found.train, found.test
    if test is None:
        raise InputError(
            f"{train.name}: no labelled image is in the test set. Mark some with test in the column split of a table."
        )
    if labels is None and dataset != FASHION_MNIST:
        settings = replace(settings, labels=(train.num_labels,))
    settings = replace(settings, backbone=default_backbone(backbone, train.shape))
    for number in settings.labels:
        train.checked(number)
    for line in plan_lines(settings, train):
        console.print(line, highlight=False)
    if only_plan:
        return
    channels = train.shape[0]
    experiment = Experiment(
        settings,
        train,
        test,
        RECIPES[default_recipe(channels)],
        fit_views(channels),
        writable_folder(out),
        partial(Observer, console=console),
        torch_device,
        fastest_precision(torch_device.type),
    )
    with resumable(), experiment.timed():
        result = run_compare(experiment, run_trials)
    about = {"name": "compare", **provenance(command_line()), "seconds": round(experiment.elapsed_seconds(), 1)}
    write_json(out / "result.json", {**about, **result})
    table = Table("labels", "candidate", "macro-F1", "against supervised, points", title="Test macro-F1 by candidate")
    against = {(each["labels"], each["arm"]): each for each in result["differences"]}
    for row in result["scores"]:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        difference = against.get((row["labels"], row["arm"]))
        keys = ("difference", "low", "high")
        text = "" if difference is None else " ".join(f"{100 * difference[key]:+.1f}" for key in keys)
        table.add_row(f"{row['labels']:,}", row["arm"], f"{row['mean']:.4f}{spread}", text)
    console.print(table)
    console.print(result["verdict"], highlight=False)
    with resumable():
        write_panels(experiment, found.names)
    console.print(f"Report: {write_compare_report(out)}", soft_wrap=True)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished comparison.", metavar="RUN")] = Path("runs/compare"),
) -> None:
    """Write the report of a finished comparison again; it works for results of compare only.

    Example: `fewlabels report runs/compare`
    """
    from fewlabels.report.compare import write_compare_report

    Console(markup=False).print(f"Report: {write_compare_report(run)}", soft_wrap=True)


def _trial_runner(name: str) -> "TrialRunner":
    from fewlabels.compare.run import run_sequentially

    if one_of("--engine", name, ("local", "ray")) == "local":
        return run_sequentially
    try:
        from fewlabels.compare.on_ray import run_on_ray
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray: {error.name} is not installed. Run: pip install 'fewlabels[ray]'") from None
    return run_on_ray
