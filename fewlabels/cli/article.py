"""The tutorial, end to end."""

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
    saying_how_to_go_on,
)


def article(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer epochs, for a demonstration.")] = False,
    seeds: Annotated[int, typer.Option(help="Seeds for the arms with few labels.", metavar="N")] = 1,
    out: Out = Path("runs/article"),
    data: DataFolder = None,
    logger: Logger = "tensorboard",
    device: Device = "auto",
) -> None:
    """Run the tutorial end to end on Fashion-MNIST and test its claims.

    Stop it with Ctrl-C at any time: the same command goes on.

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
    with saying_how_to_go_on():
        gathered = result(run, command_line(), quick)
    log.close()
    report = write_report(gathered, out)
    table = Table("arm", "labels", "epochs", "pretr.", "macro-F1", "s", title="Test macro-F1 by arm")
    for arm in gathered["arms"]:
        table.add_row(
            arm["title"],
            f"{arm['labels']:,}",
            str(arm["epochs"]),
            str(arm["pretrain_epochs"]),
            arm["macro_f1_text"],
            f"{arm['seconds']:.0f}",
        )
    console.print(table)
    for claim in gathered["claims"]:
        console.print(f"- {claim}")
    console.print(f"Report: {report}", soft_wrap=True)
