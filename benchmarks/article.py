"""Run all experiments of the tutorial on Fashion-MNIST. An interrupted run resumes."""

from pathlib import Path

import torch
from rich.console import Console

from benchmarks.harness import ResultFile
from fewlabels.data.fashion_mnist import fashion_mnist
from fewlabels.training.callbacks import make_logger
from fewlabels.tutorial.arms import ArticlePlan
from fewlabels.tutorial.run import ArticleRun

COLUMNS = ("arm", "seed", "labels", "epochs", "pretrain_epochs", "macro_f1", "accuracy", "seconds")


def main() -> None:
    """Run the experiments that have no row yet."""
    data = fashion_mnist()
    folder = Path("runs/article")
    results = ResultFile("article", "python -m benchmarks.article", keys=("arm", "seed"))
    run = ArticleRun(
        folder, data.train, data.test, ArticlePlan(), 3, make_logger("none", folder, {}), Console(), torch.device("cpu")
    )
    run.rows(on_row=lambda row: results.add({name: row[name] for name in COLUMNS}))


if __name__ == "__main__":
    main()
