"""Does pretraining help here? Paired runs and their report."""

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
    Size,
    backbone_file,
    command_line,
    device_of,
    numbers_of,
    one_of,
    opened_data,
    saying_how_to_go_on,
    seconds_of,
)

if TYPE_CHECKING:
    from fewlabels.compare.run import Engine

TESTED = 0.2
"""Of the labelled images, where the data name none for the test."""


def compare(
    dataset: Data,
    labels: Annotated[
        str | None,
        typer.Option(help="How many labels; several with commas. [all; of fashion-mnist 1000]", metavar="N,N"),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Paired runs; a claim needs 6.", metavar="N")] = 6,
    budget: Annotated[str, typer.Option(help="Time for all, such as 30m or 2h.", metavar="TIME")] = "60m",
    methods: Annotated[
        str, typer.Option(help="Methods of pretraining, with commas; the verdict is about the first.", metavar="NAMES")
    ] = "mocov2",
    backbone: Backbone = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="A pretraining's folder, or its backbone.safetensors, to compare.", metavar="RUN"),
    ] = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Say what it would do and could find; do nothing.")] = False,
    engine: Annotated[
        str,
        typer.Option(help="local, or ray: many at a time, on the cluster RAY_ADDRESS names or here.", metavar="NAME"),
    ] = "local",
    size: Size = None,
    out: Out = Path("runs/compare"),
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Does pretraining help on these images? Paired runs, an answer in plain words, and the evidence.

    Where DATA name no images for a test, a fifth of the labelled ones is set aside. Stopped with Ctrl-C, the same
    command goes on; what is done is never done again.

    Example: `fewlabels compare fashion-mnist --labels 1000 --pairs 6`
    """
    from fewlabels._internal.environment import provenance
    from fewlabels._internal.files import writable_folder, write_json
    from fewlabels.augment.recipes import RECIPES, fit_views, usual_recipe
    from fewlabels.backbones.architectures import usual_backbone
    from fewlabels.compare.cells import Bench
    from fewlabels.compare.plan import CompareSettings
    from fewlabels.compare.run import compare as run_compare
    from fewlabels.compare.run import plan_lines, write_panels
    from fewlabels.data.dataset import FASHION_MNIST
    from fewlabels.report.compare import write_compare_report
    from fewlabels.training.callbacks import Observer
    from fewlabels.training.precision import fastest_precision

    run_engine = _engine(engine)
    settings = CompareSettings(
        numbers_of("--labels", labels or "1000"),
        pairs,
        seconds_of("--budget", budget),
        tuple(methods.split(",")),
        weights=backbone_file(start_from),
    )
    console = Console(markup=False)
    torch_device = device_of(device)
    found = opened_data(dataset, data, console, TESTED, size)
    train, test = found.train, found.test
    if test is None:
        raise InputError(f"{train.name}: no labelled image is for the test. Name some in a table's column split.")
    if labels is None and dataset != FASHION_MNIST:
        settings = replace(settings, labels=(train.num_labels,))
    settings = replace(settings, backbone=usual_backbone(backbone, train.shape))
    for number in settings.labels:
        train.checked(number)
    for line in plan_lines(settings, train):
        console.print(line, highlight=False)
    if only_plan:
        return
    channels = train.shape[0]
    bench = Bench(
        settings,
        train,
        test,
        RECIPES[usual_recipe(channels)],
        fit_views(channels),
        writable_folder(out),
        partial(Observer, console=console),
        torch_device,
        fastest_precision(torch_device.type),
    )
    with saying_how_to_go_on(), bench.timed():
        result = run_compare(bench, run_engine)
    about = {"name": "compare", **provenance(command_line()), "seconds": round(bench.seconds(), 1)}
    write_json(out / "result.json", {**about, **result})
    table = Table("labels", "arm", "macro-F1", "against supervised, points", title="Test macro-F1 by arm")
    against = {(each["labels"], each["arm"]): each for each in result["differences"]}
    for row in result["arms"]:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        of = against.get((row["labels"], row["arm"]))
        text = "" if of is None else " ".join(f"{100 * of[end]:+.1f}" for end in ("difference", "low", "high"))
        table.add_row(f"{row['labels']:,}", row["arm"], f"{row['mean']:.4f}{spread}", text)
    console.print(table)
    console.print(result["verdict"], highlight=False)
    with saying_how_to_go_on():
        write_panels(bench, found.names)
    console.print(f"Report: {write_compare_report(out)}", soft_wrap=True)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a comparison.", metavar="RUN")] = Path("runs/compare"),
) -> None:
    """Draw a comparison's report again, from what it has measured.

    Example: `fewlabels report runs/compare`
    """
    from fewlabels.report.compare import write_compare_report

    Console(markup=False).print(f"Report: {write_compare_report(run)}", soft_wrap=True)


def _engine(name: str) -> "Engine":
    from fewlabels.compare.run import one_after_the_other

    if one_of("--engine", name, ("local", "ray")) == "local":
        return one_after_the_other
    try:
        from fewlabels.compare.on_ray import over_ray
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray: {error.name} is not installed. Run: pip install 'fewlabels[ray]'") from None
    return over_ray
