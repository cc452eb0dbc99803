import os

# lightly asks its server for news of itself when imported; a test needs no network.
os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
os.environ["WANDB_MODE"] = "offline"
# Two workers with several threads each would wait for each other, spinning.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from fewlabels.cli import app as cli
from fewlabels.data.fashion_mnist import Splits, fashion_mnist
from fewlabels.report.article import write_report
from fewlabels.training.callbacks import make_logger
from fewlabels.tutorial.arms import ArticlePlan
from fewlabels.tutorial.run import ArticleRun, result

LONG = ("test_processes", "test_pretrain", "test_select", "test_run", "test_fit", "test_plan", "test_sklearn")
LONG += ("test_commands", "test_on_ray", "test_experts", "test_killed", "test_scan", "test_browser", "test_recipes")
"""Files that take longest: begun first, no worker is left with one of them while the other has nothing more to do."""
TINY = ArticlePlan(few_labels=200, full_epochs=1, few_epochs=3, head_epochs=2, pretrain_epochs=2, comparison_epochs=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def fmnist() -> Splits:
    """The real data; fetched into the cache the first time."""
    return fashion_mnist()


@pytest.fixture(scope="session")
def tiny_run(fmnist: Splits, tmp_path_factory: pytest.TempPathFactory) -> ArticleRun:
    """The whole tutorial on 1,000 images, with its report; of two workers the second reads the first one's files."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "article"
    with FileLock(f"{folder}.lock"):
        logger = make_logger("tensorboard", folder, {"plan": "tiny"})
        train, test = fmnist.train.first_k(1000), fmnist.test.first_k(500)
        run = ArticleRun(folder, train, test, TINY, 2, logger, Console(quiet=True), torch.device("cpu"))
        if not (folder / "report.html").is_file():
            write_report(result(run, "fewlabels article", quick=True), folder)
        logger.close()
    return run


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def decoded_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a test decodes is its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("fewlabels.data.dataset.user_cache_path", lambda name: folder)


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process."""

    def run(*args: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fewlabels", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(stop.value.code or 0), captured.out, captured.err)

    return run
