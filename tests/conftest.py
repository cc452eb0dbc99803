import os

# lightly checks for a new version over the network when it is imported.
os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
os.environ["WANDB_MODE"] = "offline"
# Two workers with several threads each would slow each other down.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import re
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

MISSING = re.compile(r"could not import|pip install|apt install|No module named|not installed|no [\w-]+ here", re.I)
"""In the reason of a skip: a program or a package is missing."""
SLOWEST_FIRST = (
    *("test_processes", "test_pretrain", "test_select", "test_run", "test_pipeline", "test_sklearn", "test_commands"),
    *("test_on_ray", "test_killed", "test_scan", "test_browser", "test_recipes"),
)
"""Test files that take longest. They run first, so that no worker runs one of them while the other is idle."""
TINY_PLAN = ArticlePlan(
    few_labels=200, full_epochs=1, few_epochs=3, head_epochs=2, pretrain_epochs=2, comparison_epochs=1
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: index for index, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true, fail if a test was skipped because a program or a package is missing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    missing = {reason for report in reporter.stats.get("skipped", []) if MISSING.search(reason := skip_reason(report))}
    if missing:
        reporter.write_line(f"CI=true, and tests were skipped: {'; '.join(sorted(missing))}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def skip_reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


@pytest.fixture(scope="session")
def fmnist() -> Splits:
    """Fashion-MNIST; downloaded into the cache the first time."""
    return fashion_mnist()


@pytest.fixture(scope="session")
def tiny_run(fmnist: Splits, tmp_path_factory: pytest.TempPathFactory) -> ArticleRun:
    """The whole tutorial on 1,000 images, with its report. Two pytest workers share one run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "article"
    with FileLock(f"{folder}.lock"):
        logger = make_logger("tensorboard", folder, {"plan": "tiny"})
        train, test = fmnist.train.first_k(1000), fmnist.test.first_k(500)
        run = ArticleRun(folder, train, test, TINY_PLAN, 2, logger, Console(quiet=True), torch.device("cpu"))
        if not (folder / "report.html").is_file():
            write_report(result(run, "fewlabels article", quick=True), folder)
        logger.close()
    return run


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def decoded_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test its own cache of decoded images."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("fewlabels.data.dataset.user_cache_path", lambda name: folder)


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """A function that runs the command line in this process."""

    def run(*args: str | Path) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["fewlabels", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return CommandResult(int(stop.value.code or 0), captured.out, captured.err)

    return run
