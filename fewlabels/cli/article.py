"""The command ``article``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fewlabels.cli.options import (
    DataFolder,
    Device,
    Logger,
    Out,
    at_least,
    command_line,
    device_of,
    resumable,
)


def article(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer epochs, for a demonstration.", metavar="")] = False,
    seeds: Annotated[int, typer.Option(help="Number of seeds for the trainings with few labels.", metavar="N")] = 1,
    out: Out = Path("runs/article"),
    data: DataFolder = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Run a SimSiam tutorial on Fashion-MNIST and test its claims.

    After Ctrl-C the same command resumes.

    Example: `fewlabels article --quick --out runs/demo`
    """
    from fewlabels._internal.files import writable_folder
    from fewlabels.data.fashion_mnist import fashion_mnist
    from fewlabels.report.article import write_report
    from fewlabels.training.callbacks import make_logger
    from fewlabels.tutorial.arms import QUICK, ArticlePlan
    from fewlabels.tutorial.run import ArticleRun, result

    at_least("--seeds", seeds)
    plan = QUICK if quick else ArticlePlan()
    console = Console(markup=False)
    writable_folder(out)
    torch_device = device_of(device)
    splits = fashion_mnist(data, say=console.print)
    log = make_logger(logger, out, {"command": command_line(), **asdict(plan)})
    run = ArticleRun(out, splits.train, splits.test, plan, seeds, log, console, torch_device)
    with resumable():
        gathered = result(run, command_line(), quick)
    log.close()
    report = write_report(gathered, out)
    table = Table("experiment", "labels", "epochs", "pretr.", "macro-F1", "s", title="Test macro-F1 by experiment")
    for experiment in gathered["experiments"]:
        table.add_row(
            experiment["title"],
            f"{experiment['labels']:,}",
            str(experiment["epochs"]),
            str(experiment["pretrain_epochs"]),
            experiment["macro_f1_text"],
            f"{experiment['seconds']:.0f}",
        )
    console.print(table)
    for claim in gathered["claims"]:
        console.print(f"- {claim}")
    console.print(f"Report: {report}", soft_wrap=True)
