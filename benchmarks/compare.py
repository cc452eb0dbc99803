"""The main job as a user runs it: six pairs with 1,000 labels of the real Fashion-MNIST, and the same command again.

Rows: each arm, and what both commands took. The report's picture for the README is taken with headless Chromium.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.harness import ResultFile

PLACE = Path("runs/compare")
COMMAND = ("compare", "fashion-mnist", "--labels", "1000", "--pairs", "6", "--out", str(PLACE))
PICTURE = Path(__file__).parent.parent / "docs" / "report.png"


def main() -> None:
    """Measure and take the picture, unless it is measured."""
    file = ResultFile("compare", "python -m benchmarks.compare", keys=("what", "arm"))
    if not file.has(what="command", arm=""):
        _seconds()  # a start that goes on has less to do: what counts is what all of them took
        again = _seconds()
        result = json.loads((PLACE / "result.json").read_text())
        claims = {claim["arm"]: claim for claim in result["differences"]}
        arms = [{"what": "arm", **row, **claims.get(row["arm"], {})} for row in result["arms"]]
        told = {name: result[name] for name in ("verdict", "asked", "audit", "seconds")}
        report = round((PLACE / "report.html").stat().st_size / 1e6, 2)
        about = {"again_seconds": again, "report_mb": report, **told}
        _picture()
        file.replace([*arms, {"what": "command", "arm": "", **about}])


def _seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fewlabels.cli.app", *COMMAND], check=True)
    return round(time.perf_counter() - began, 1)


def _picture() -> None:
    """The top of the report, as wide as a laptop's window."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 1100})
        page.goto((PLACE / "report.html").resolve().as_uri())
        page.wait_for_timeout(2000)
        page.screenshot(path=PICTURE)
        chromium.close()


if __name__ == "__main__":
    main()
